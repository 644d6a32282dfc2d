#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = oncekey_fuzz::auth::TOKEN.check(data);
});
