//! What a token says.

use std::collections::BTreeMap;

use oncekey_types::UserId;
use serde::{Deserialize, de::IgnoredAny};

/// The claims that matter here; issuer and audience are checked before. Times are whole seconds.
#[derive(Deserialize)]
pub(super) struct Claims {
    pub(super) sub: UserId,
    pub(super) exp: u64,
    pub(super) nbf: Option<u64>,
    /// Scopes, apart by spaces (RFC 8693, section 4.2).
    #[serde(default)]
    scope: String,
    /// Taken apart all the same: a token of which not every part is UTF-8 is none.
    #[serde(flatten)]
    _others: BTreeMap<String, IgnoredAny>,
}

impl Claims {
    pub(super) fn has_scope(&self, wanted: &str) -> bool {
        self.scope.split(' ').any(|scope| scope == wanted)
    }
}
