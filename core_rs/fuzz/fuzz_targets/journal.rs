#![no_main]
#![doc = "See `switch_fuzz::journal`."]

libfuzzer_sys::fuzz_target!(|data: &[u8]| switch_fuzz::journal::check(data));
