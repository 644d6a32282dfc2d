//! Tokens: whom the operator's account system vouches for.
//!
//! Guarantees: a token counts when one key of the operator's set has signed it with the one algorithm
//! that is configured, it was issued by the issuer configured for the audience configured, and its
//! time has come and is not over, give or take the skew allowed. What was verified is remembered by
//! the token's hash, so that a token is verified once and not at each request, as long as the keys
//! are the same and its time is not over.
//!
//! Leaves out: revocation before a token ends. Give tokens short lives, or take the key out of the set.

mod claims;
mod fetch;
#[cfg(feature = "fuzzing")]
pub(super) mod fuzzing;
mod keyring;
mod keys;
mod rules;
mod verifier;

use std::sync::Arc;

use oncekey_api::{Code, Problem};
use oncekey_raft::environment::Clock;
use oncekey_types::limits;
use quick_cache::sync::Cache;
use sha2::{Digest as _, Sha256};

pub use self::keyring::KeysError;
pub(crate) use self::rules::Identity;
use self::{keyring::KeyRing, rules::Rules};
use crate::config::auth;

/// Verifies tokens.
pub(crate) struct Tokens {
    rules: Rules,
    ring: KeyRing,
    verified: Cache<[u8; 32], Verified>,
    clock: Clock,
}

/// Who showed a token, and the number of the keys under which it was verified.
#[derive(Clone)]
struct Verified {
    identity: Arc<Identity>,
    keys: u64,
}

impl Tokens {
    /// Verifies by `settings`; reads the keys.
    ///
    /// # Errors
    ///
    /// A [`KeysError`] when the keys lie in a file and cannot be taken from it.
    pub(crate) async fn start(settings: &auth::Tokens, clock: Clock) -> Result<Self, KeysError> {
        verifier::install();
        Ok(Self {
            rules: Rules::new(settings),
            ring: KeyRing::start(settings).await?,
            verified: Cache::new(limits::TOKENS_REMEMBERED_MAX),
            clock,
        })
    }

    /// Whom `token` speaks for.
    ///
    /// # Errors
    ///
    /// [`Code::TokenInvalid`], [`Code::TokenExpired`], [`Code::KeysUnavailable`].
    pub(crate) async fn verify(&self, token: &str) -> Result<Arc<Identity>, Problem> {
        Rules::length(token)?;
        let name: [u8; 32] = Sha256::digest(token).into();
        let identity = match self.verified.get(&name) {
            Some(verified) if verified.keys == self.ring.generation() => verified.identity,
            Some(_) | None => {
                let verified = self.verify_anew(token).await?;
                let identity = Arc::clone(&verified.identity);
                if identity.check_time(self.clock.now()).is_ok() {
                    self.verified.insert(name, verified);
                }
                identity
            }
        };
        identity.check_time(self.clock.now())?;
        Ok(identity)
    }

    async fn verify_anew(&self, token: &str) -> Result<Verified, Problem> {
        let header = self.rules.header(token)?;
        let (key, keys) = self.ring.key(header.kid.as_deref()).await?;
        let identity = Arc::new(self.rules.identity(token, &key)?);
        Ok(Verified { identity, keys })
    }
}

fn invalid(detail: &str) -> Problem {
    Problem::new(Code::TokenInvalid, detail)
}

#[cfg(test)]
mod tests;
