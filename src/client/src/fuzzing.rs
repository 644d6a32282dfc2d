//! What this crate decodes and keeps to itself, opened to the fuzz targets.

use oncekey_api::bundle::Bundle as WireBundle;
use oncekey_types::UserId;
use oncekey_x3dh::Bundle;

pub use crate::keystore::fuzzing::{change_again, export_secret, export_secret_again};
use crate::wire::{self, BundleMalformed};

/// Parses the bundle of a device of `user`, as a reply brings it.
///
/// # Errors
///
/// [`BundleMalformed`].
pub fn bundle(user: &UserId, wire: &WireBundle) -> Result<Bundle, BundleMalformed> {
    wire::bundle(user, wire)
}
