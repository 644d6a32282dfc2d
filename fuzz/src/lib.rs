//! Fuzz targets for every decoder that faces a network, a disk or a person.
//!
//! A [`Target`] takes any bytes and panics when a property fails: what is decoded and encoded again
//! is the same (byte for byte, where a format has one encoding for each value), limits hold, and no
//! more memory is taken than the input and its format justify.
//!
//! Each has a program in `fuzz_targets` for `cargo fuzz`, and `tests/corpus.rs` runs all of them
//! over the inputs kept in `corpus` and `crashes`. `docs/fuzzing.md` says how to run them, and for
//! how long they have been run.

#![warn(missing_docs)]
#![forbid(unsafe_code)]

pub mod auth;
pub mod certs;
pub mod edge;
mod examples;
pub mod files;
pub mod handshake;
pub mod log;
pub mod peers;
pub mod state;
pub mod wire;

use std::sync::atomic::{AtomicUsize, Ordering};

use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Memory that any run may take: tables and keys that are made once, replies, runtimes.
const SLACK_BYTES: usize = 4 << 20;
/// Memory that a run may take for each byte of its input.
const BYTES_PER_BYTE: usize = 256;

/// A property of one decoder, or of several that belong together.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: that of its program and of its folders.
    pub name: &'static str,
    /// What must hold for all bytes.
    pub run: fn(&[u8]),
    /// Real encodings to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// What one value of the format may claim in bytes before its content is there: zero where
    /// lengths are held against the input.
    pub claim_bytes: usize,
}

impl Target {
    /// Runs it over `data` and measures its memory. Whether `data` was taken by a decoder, and not
    /// refused.
    pub fn check(&self, data: &[u8]) -> bool {
        let refused = TAKEN.load(Ordering::Relaxed);
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        (self.run)(data);
        let taken = MEMORY.peak_usage().saturating_sub(before);
        let allowed = SLACK_BYTES + self.claim_bytes + BYTES_PER_BYTE * data.len();
        assert!(taken <= allowed, "{} bytes of input took {taken} bytes", data.len());
        TAKEN.load(Ordering::Relaxed) > refused
    }
}

/// All targets.
pub const TARGETS: &[Target] = &[
    handshake::INITIAL_MESSAGE,
    handshake::DEVICE_LIST,
    handshake::PAIRING_CODE,
    handshake::PUBLIC_KEY,
    wire::REQUEST_BODY,
    wire::REPLY_BODY,
    wire::EVENT_STREAM,
    edge::CONNECTION,
    edge::UPLOAD,
    edge::HEADER_FIELD,
    auth::TOKEN,
    auth::KEY_SET,
    auth::REQUEST_SIGNATURE,
    certs::CERTIFICATE,
    peers::PEER_FRAME,
    peers::NODE_FILE,
    state::ENTRY,
    state::MESSAGE,
    state::RECORD,
    state::SNAPSHOT,
    log::LOG_SEGMENT,
    log::LOG_DAMAGE,
    files::BACKUP,
    files::EXPORT,
    files::TRUST_CHANGE,
    files::CONFIGURATION,
    files::HISTORY,
];

/// Inputs that were not refused, since the process began.
static TAKEN: AtomicUsize = AtomicUsize::new(0);

/// Notes that an input was not refused.
fn take() {
    TAKEN.fetch_add(1, Ordering::Relaxed);
}

/// Runs `again`, which decodes and encodes, over `data`: what it gives must be `data` itself.
fn one_encoding(data: &[u8], again: impl Fn(&[u8]) -> Option<Vec<u8>>) {
    if let Some(encoded) = again(data) {
        take();
        assert_eq!(encoded, data, "a second encoding of the same value");
    }
}

/// The same for a format in which a value has several encodings: the one that is written must come
/// back.
fn comes_back(data: &[u8], again: impl Fn(&[u8]) -> Option<Vec<u8>>) {
    if let Some(encoded) = again(data) {
        take();
        assert_eq!(again(&encoded).as_ref(), Some(&encoded), "what was written is not read back");
    }
}

/// The first byte of `data` chooses one of `choices`; the rest is for it.
fn choose<'a, T: Copy>(choices: &[T], data: &'a [u8]) -> Option<(T, &'a [u8])> {
    let (choice, rest) = data.split_first()?;
    choices.get(usize::from(*choice) % choices.len()).map(|choice| (*choice, rest))
}

/// `bytes` behind a byte that makes [`choose`] take the choice number `choice`.
fn chosen(choice: usize, bytes: &[u8]) -> Vec<u8> {
    let choice = u8::try_from(choice).unwrap_or_default();
    [&[choice], bytes].concat()
}
