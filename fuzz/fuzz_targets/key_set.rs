#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = oncekey_fuzz::auth::KEY_SET.check(data);
});
