#![no_main]
#![doc = "See `switch_fuzz::record`."]

libfuzzer_sys::fuzz_target!(|data: &[u8]| switch_fuzz::record::check(data));
