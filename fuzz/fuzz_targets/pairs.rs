#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| condor_fuzz::pairs::pairs(data));
