#![no_main]

#[path = "proxy/parsers.rs"]
mod parsers;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    condor_fuzz::proxy::proxy(data);
    if let Some((_, bytes)) = data.split_first() {
        parsers::agree(bytes);
    }
});
