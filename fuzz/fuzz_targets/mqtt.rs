#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| smidge_mqtt::fuzz::clients(bytes));
