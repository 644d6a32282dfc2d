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
mod keyring;
mod keys;
mod verifier;

use std::sync::Arc;

use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use oncekey_api::{Code, Problem};
use oncekey_raft::environment::Clock;
use oncekey_types::{TimestampMs, UnixSeconds, UserId, limits};
use quick_cache::sync::Cache;
use sha2::{Digest as _, Sha256};

use self::{claims::Claims, keyring::KeyRing};
use crate::config::auth;

pub use self::keyring::KeysError;

/// Whom a token speaks for.
pub(crate) struct Identity {
    /// The account.
    pub(crate) user: UserId,
    /// Whether it has the operators' scope.
    pub(crate) is_operator: bool,
    valid_from: UnixSeconds,
    valid_until: UnixSeconds,
    /// The keys under which it was verified.
    keys: u64,
}

/// Verifies tokens.
pub(crate) struct Tokens {
    validation: Validation,
    operator_scope: String,
    skew_s: u64,
    ring: KeyRing,
    verified: Cache<[u8; 32], Arc<Identity>>,
    clock: Clock,
}

impl Tokens {
    /// Verifies by `settings`; reads the keys.
    ///
    /// # Errors
    ///
    /// A [`KeysError`] when the keys lie in a file and cannot be taken from it.
    pub(crate) async fn start(settings: &auth::Tokens, clock: Clock) -> Result<Self, KeysError> {
        verifier::install();
        let mut validation = Validation::new(match settings.algorithm {
            auth::Algorithm::EdDsa => Algorithm::EdDSA,
            auth::Algorithm::Es256 => Algorithm::ES256,
        });
        validation.set_issuer(&[&settings.issuer]);
        validation.set_audience(&[&settings.audience]);
        validation.set_required_spec_claims(&["iss", "aud", "exp", "sub"]);
        // By the node's clock, below.
        validation.validate_exp = false;
        Ok(Self {
            validation,
            operator_scope: settings.operator_scope.clone(),
            skew_s: settings.skew.as_secs(),
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
        if token.len() > limits::TOKEN_MAX_BYTES {
            let detail = format!("it is longer than {} bytes", limits::TOKEN_MAX_BYTES);
            return Err(Problem::new(Code::TokenInvalid, detail));
        }
        let name: [u8; 32] = Sha256::digest(token).into();
        let identity = match self.verified.get(&name) {
            Some(identity) if identity.keys == self.ring.generation() => identity,
            Some(_) | None => {
                let identity = Arc::new(self.verify_anew(token).await?);
                if identity.check_time(self.clock.now()).is_ok() {
                    self.verified.insert(name, Arc::clone(&identity));
                }
                identity
            }
        };
        identity.check_time(self.clock.now())?;
        Ok(identity)
    }

    async fn verify_anew(&self, token: &str) -> Result<Identity, Problem> {
        let header = decode_header(token).map_err(|_| invalid("it is not a token of this form"))?;
        let typ = header.typ.as_deref().unwrap_or("JWT");
        if !["JWT", "at+jwt"].iter().any(|known| known.eq_ignore_ascii_case(typ)) {
            return Err(invalid("its type is not JWT or at+jwt"));
        }
        if header.crit.is_some() {
            return Err(invalid("it has critical parameters that are not known here"));
        }
        if !self.validation.algorithms.contains(&header.alg) {
            return Err(invalid("it is not of the algorithm that is taken here"));
        }
        let (key, keys) = self.ring.key(header.kid.as_deref()).await?;
        // What is wrong in detail is no help to those who may have a token.
        let claims = decode::<Claims>(token, &key, &self.validation)
            .map_err(|_| invalid("its signature, issuer or audience is not the one required"))?
            .claims;
        let skew = |seconds: u64| seconds.saturating_add(self.skew_s);
        Ok(Identity {
            is_operator: claims.has_scope(&self.operator_scope),
            valid_from: UnixSeconds(claims.nbf.unwrap_or(0).saturating_sub(self.skew_s)),
            valid_until: UnixSeconds(skew(claims.exp)),
            user: claims.sub,
            keys,
        })
    }
}

impl Identity {
    fn check_time(&self, now: TimestampMs) -> Result<(), Problem> {
        let now = now.to_seconds();
        if now < self.valid_from {
            return Err(Problem::new(Code::TokenExpired, "its time has not come yet"));
        }
        if now >= self.valid_until {
            return Err(Problem::new(Code::TokenExpired, "its time is over"));
        }
        Ok(())
    }
}

fn invalid(detail: &str) -> Problem {
    Problem::new(Code::TokenInvalid, detail)
}

#[cfg(test)]
mod tests;
