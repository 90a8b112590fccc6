#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| device_fuzz::targets::mqtt_session(data));
