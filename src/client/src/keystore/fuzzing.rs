//! What the key store decodes behind its seals, opened to the fuzz targets.

use super::{Export, change, export};

/// The content of an export, as it is locked.
#[must_use]
pub fn export_secret(export: &Export) -> Option<Vec<u8>> {
    export.encode().ok().map(|secret| secret.to_vec())
}

/// The content of an export, decoded and encoded again; none when it is refused.
#[must_use]
pub fn export_secret_again(secret: &[u8]) -> Option<Vec<u8>> {
    export_secret(&export::decode_secret(secret).ok()?)
}

/// A stored change of trust, decoded and encoded again; none when it is refused.
#[must_use]
pub fn change_again(bytes: &[u8]) -> Option<Vec<u8>> {
    change::encode(&change::decode(bytes).ok()?).ok()
}
