#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rialto_fuzz::within_memory(bytes, rialto_fuzz::expectations::expectations));
