#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| smidge_catchup::fuzz::frames(bytes));
