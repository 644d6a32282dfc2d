//! What a token must be and say, and whom it speaks for then.
//!
//! Guarantees: no clock is read and no key is fetched here. Leaves out: its time, which is held
//! against a clock at each use; see [`Identity::check_time`].

use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation, decode, decode_header};
use oncekey_api::{Code, Problem};
use oncekey_types::{TimestampMs, UnixSeconds, UserId, limits};

use super::{claims::Claims, invalid};
use crate::config::auth;

/// What a token must be and say.
pub(super) struct Rules {
    validation: Validation,
    operator_scope: String,
    skew_s: u64,
}

/// Whom a token speaks for.
pub(crate) struct Identity {
    /// The account.
    pub(crate) user: UserId,
    /// Whether it has the operators' scope.
    pub(crate) is_operator: bool,
    valid_from: UnixSeconds,
    valid_until: UnixSeconds,
}

impl Rules {
    pub(super) fn new(settings: &auth::Tokens) -> Self {
        let mut validation = Validation::new(match settings.algorithm {
            auth::Algorithm::EdDsa => Algorithm::EdDSA,
            auth::Algorithm::Es256 => Algorithm::ES256,
        });
        validation.set_issuer(&[&settings.issuer]);
        validation.set_audience(&[&settings.audience]);
        validation.set_required_spec_claims(&["iss", "aud", "exp", "sub"]);
        // By the node's clock.
        validation.validate_exp = false;
        Self {
            validation,
            operator_scope: settings.operator_scope.clone(),
            skew_s: settings.skew.as_secs(),
        }
    }

    /// The length that a token must not be over.
    pub(super) fn length(token: &str) -> Result<(), Problem> {
        if token.len() > limits::TOKEN_MAX_BYTES {
            return Err(invalid(&format!("it is longer than {} bytes", limits::TOKEN_MAX_BYTES)));
        }
        Ok(())
    }

    /// What a token says before its signature; names the key.
    pub(super) fn header(&self, token: &str) -> Result<Header, Problem> {
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
        Ok(header)
    }

    /// Whom a token signed by `key` speaks for.
    pub(super) fn identity(&self, token: &str, key: &DecodingKey) -> Result<Identity, Problem> {
        // What is wrong in detail is no help to those who may have a token.
        let claims = decode::<Claims>(token, key, &self.validation)
            .map_err(|_| invalid("its signature, issuer or audience is not the one required"))?
            .claims;
        Ok(Identity {
            is_operator: claims.has_scope(&self.operator_scope),
            valid_from: UnixSeconds(claims.nbf.unwrap_or(0).saturating_sub(self.skew_s)),
            valid_until: UnixSeconds(claims.exp.saturating_add(self.skew_s)),
            user: claims.sub,
        })
    }
}

impl Identity {
    /// Whether its time has come and is not over.
    pub(super) fn check_time(&self, now: TimestampMs) -> Result<(), Problem> {
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
