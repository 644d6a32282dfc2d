//! What is read of backups, opened to the fuzz targets.

use crate::{
    frames::{Checked, Frames},
    manifest::Manifest,
};

/// Reads `bytes` as a manifest and writes it anew.
#[must_use]
pub fn manifest_again(bytes: &[u8]) -> Option<Vec<u8>> {
    Manifest::decode(bytes).ok()?.encode().ok().map(|(_, bytes)| bytes)
}

/// Reads `bytes` as a manifest, whatever its checksum, and writes it with the right one.
#[must_use]
pub fn sealed(bytes: &[u8]) -> Option<Vec<u8>> {
    let manifest: Manifest = serde_json::from_slice(bytes).ok()?;
    manifest.encode().ok().map(|(_, bytes)| bytes)
}

/// Reads a shard's backup that comes in `parts` and gives what is written to a file; none when it is
/// not one, to its end.
pub fn shard_again<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Option<Vec<u8>> {
    let (mut frames, mut checked) = (Frames::default(), Checked::new());
    let mut written = Vec::new();
    for part in parts {
        frames.push(part);
        while let Some(chunk) = frames.next_chunk().ok()? {
            written.extend(checked.pass(&chunk).ok()?);
        }
    }
    frames.finish().ok()?;
    let passed = checked.finish().ok()?;
    assert_eq!(passed.bytes, written.len() as u64, "what passed is not what was written");
    Some(written)
}
