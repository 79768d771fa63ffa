#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| condor_fuzz::faulty_framers::faulty_framers(data));
