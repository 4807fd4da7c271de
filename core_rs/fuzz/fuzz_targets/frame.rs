#![no_main]
#![doc = "See `switch_fuzz::frame`."]

libfuzzer_sys::fuzz_target!(|data: &[u8]| switch_fuzz::frame::check(data));
