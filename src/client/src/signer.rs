//! What shows that a device sent a call.
//!
//! Guarantees: each attempt is signed anew, for the node that it goes to and for a minute; the
//! authentication key signs, never the identity key.
//!
//! Leaves out: replays of a write within its minute, which the write's `seq` tells.

use std::{fmt, sync::Arc, time::Duration};

use oncekey_api::signature::{Components, LIFETIME_MAX_S, Parameters, content_digest, signature};
use oncekey_types::{TimestampMs, UnixSeconds};
use oncekey_x3dh::keys::AuthenticationKeyPair;

use crate::transport::Method;

/// Signs the attempts of one call.
#[derive(Clone)]
pub struct Signer {
    key_id: String,
    key: Arc<AuthenticationKeyPair>,
    made: TimestampMs,
}

/// The fields of a request that is signed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SignatureFields {
    /// `Content-Digest`.
    pub content_digest: String,
    /// `Signature-Input`.
    pub signature_input: String,
    /// `Signature`.
    pub signature: String,
}

impl Signer {
    /// Signs with `key`, which [`key_id`](oncekey_api::path::key_id) names, a call that is made at
    /// the time `made`.
    #[must_use]
    pub fn new(key_id: String, key: Arc<AuthenticationKeyPair>, made: TimestampMs) -> Self {
        Self { key_id, key, made }
    }

    /// Signs an attempt to the node at `authority`, so much `later` than the call was made. `target`
    /// is path and query.
    #[must_use]
    pub fn sign(
        &self,
        method: Method,
        authority: &str,
        target: &str,
        body: &[u8],
        later: Duration,
    ) -> SignatureFields {
        let created = UnixSeconds(self.made.to_seconds().0.saturating_add(later.as_secs()));
        let parameters = Parameters {
            created,
            expires: UnixSeconds(created.0.saturating_add(LIFETIME_MAX_S)),
            key_id: &self.key_id,
        };
        let parameters = parameters.to_string();
        let content_digest = content_digest(body);
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let method = method.to_string();
        let components =
            Components { method: &method, authority, path, query, content_digest: &content_digest };
        let made = self.key.sign(components.base(&parameters).as_bytes());
        SignatureFields {
            signature: signature(made.as_bytes()),
            signature_input: format!("{}={parameters}", oncekey_api::signature::LABEL),
            content_digest,
        }
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer(..)")
    }
}
