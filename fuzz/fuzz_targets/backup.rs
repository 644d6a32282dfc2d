#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = oncekey_fuzz::files::BACKUP.check(data);
});
