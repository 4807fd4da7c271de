#![no_main]
#![doc = "See `switch_fuzz::message`."]

libfuzzer_sys::fuzz_target!(|data: &[u8]| switch_fuzz::message::check(data));
