//! Sets of keys and tokens, opened to the fuzz targets.

use oncekey_api::Problem;
use oncekey_types::{TimestampMs, UserId};

use super::{keys::KeySet, rules::Rules, verifier};
use crate::config::auth;

/// What a node takes of a set of keys and knows of tokens without asking anybody.
pub struct KnownKeys {
    rules: Rules,
    keys: KeySet,
}

impl KnownKeys {
    /// The set of keys in `bytes`, for tokens as in `settings`; none when it is not taken.
    #[must_use]
    pub fn parse(bytes: &[u8], settings: &auth::Tokens) -> Option<Self> {
        verifier::install();
        let keys = KeySet::parse(bytes, settings.algorithm).ok()?;
        Some(Self { rules: Rules::new(settings), keys })
    }

    /// The names of the keys.
    pub fn names(&self) -> impl Iterator<Item = Option<&str>> {
        self.keys.names()
    }

    /// Whether there is a key of this name; without a name, one key alone.
    #[must_use]
    pub fn has(&self, name: Option<&str>) -> bool {
        self.keys.find(name).is_some()
    }

    /// Whom `token` speaks for at the time `now`, and whether that is an operator.
    ///
    /// # Errors
    ///
    /// What its bearer is answered.
    pub fn verify(&self, token: &str, now: TimestampMs) -> Result<(UserId, bool), Problem> {
        Rules::length(token)?;
        let header = self.rules.header(token)?;
        let key = self.keys.find(header.kid.as_deref());
        let key = key.ok_or_else(|| super::invalid("it names no key that is known here"))?;
        let identity = self.rules.identity(token, key)?;
        identity.check_time(now)?;
        Ok((identity.user, identity.is_operator))
    }
}
