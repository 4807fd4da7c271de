#![no_main]
#![doc = "See `switch_fuzz::authorizer`."]

libfuzzer_sys::fuzz_target!(|data: &[u8]| switch_fuzz::authorizer::check(data));
