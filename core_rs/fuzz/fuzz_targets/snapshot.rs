#![no_main]
#![doc = "See `switch_fuzz::snapshot`."]

libfuzzer_sys::fuzz_target!(|data: &[u8]| switch_fuzz::snapshot::check(data));
