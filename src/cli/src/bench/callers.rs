//! Who asks: callers by their names, or users with tokens and devices that sign.
//!
//! Guarantees: no caller asks for more than one key of a user, so a node that limits what a caller
//! gets withholds nothing. Leaves out: accounts; the benchmark has the key that signs tokens. Nor does
//! it keep the devices' keys secret: they follow from a number that is in the names of their users.

use std::time::{Duration, SystemTime};

use anyhow::Result;
use oncekey_api::header;
use oncekey_client::{Signer, machine::Device};
use oncekey_cluster::issuer::{Claims, Issuer};
use oncekey_types::{TimestampMs, UserId};
use rand::{SeedableRng as _, rngs::StdRng};

use super::population::{DEVICE, KEYS_PER_USER};

/// How long the tokens live: longer than a benchmark.
const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// Who the benchmark is to the nodes.
pub(super) enum Callers {
    /// Whoever a request names; devices need not sign.
    Named,
    /// Users with tokens.
    Proven(Box<Proven>),
}

/// Users whose tokens the benchmark makes, and devices that sign.
pub(super) struct Proven {
    issuer: Issuer,
    claims: Claims,
    /// The field `authorization` of each user that fetches.
    fetching: Vec<String>,
}

/// What shows that a device of the benchmark sends a request.
pub(super) struct Shown {
    /// The field `authorization`, for its user.
    pub(super) bearer: String,
    pub(super) signer: Signer,
}

impl Callers {
    /// Users with tokens by `issuer`, under the issuer and for the audience that nodes want.
    pub(super) fn proven(issuer: Issuer, name: &str, audience: &str) -> Self {
        let claims = Claims {
            issuer: name.to_owned(),
            audience: audience.to_owned(),
            lifetime: LIFETIME,
            ..Claims::new("")
        };
        let mut proven = Proven { issuer, claims, fetching: Vec::new() };
        let fetching = (0..KEYS_PER_USER).map(|caller| proven.bearer(&format!("bench-{caller}")));
        proven.fetching = fetching.collect();
        Self::Proven(Box::new(proven))
    }

    /// The field that says who fetches, of a request with the idempotency key `name` for the key
    /// number `round` of a user.
    pub(super) fn fetching<'a>(&'a self, name: &'a str, round: u32) -> (&'static str, &'a str) {
        match self {
            Self::Named => (header::CALLER, name),
            Self::Proven(proven) => {
                let count = proven.fetching.len();
                let caller = usize::try_from(round).unwrap_or_default() % count;
                ("authorization", proven.fetching[caller].as_str())
            }
        }
    }

    /// What shows that `device` of `user` sends a request now.
    pub(super) fn shown(&self, user: &UserId, device: &Device) -> Result<Option<Shown>> {
        let Self::Proven(proven) = self else { return Ok(None) };
        let signer = device.signer(now()?);
        Ok(Some(Shown { bearer: proven.bearer(user.as_str()), signer }))
    }
}

impl Proven {
    fn bearer(&self, user: &str) -> String {
        let claims = Claims { subject: user.to_owned(), ..self.claims.clone() };
        format!("Bearer {}", self.issuer.token(&claims))
    }
}

/// The device of `user`. The same again for the same `seed`, so that nobody has to keep its keys.
pub(super) fn device(user: UserId, seed: u64) -> Device {
    Device::generate(user, DEVICE, None, &mut StdRng::seed_from_u64(seed))
}

pub(super) fn now() -> Result<TimestampMs> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    Ok(TimestampMs(u64::try_from(now.as_millis())?))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_key_of_a_user_is_asked_for_by_another_caller() {
        let dir = tempfile::tempdir().unwrap();
        let issuer = Issuer::create(dir.path()).unwrap();
        let callers = Callers::proven(issuer, "us", "them");
        let fields: BTreeSet<_> = (0..KEYS_PER_USER)
            .map(|round| {
                let (name, bearer) = callers.fetching("any", round);
                assert_eq!(name, "authorization");
                bearer.to_owned()
            })
            .collect();
        assert_eq!(fields.len(), usize::try_from(KEYS_PER_USER).unwrap());
        assert_eq!(Callers::Named.fetching("any", 3), (header::CALLER, "any"));
    }

    #[test]
    fn a_device_is_the_same_again() {
        let device = |seed| {
            let device = device("bob".parse().unwrap(), seed);
            *device.authentication().public().as_bytes()
        };
        assert_eq!(device(1), device(1));
        assert_ne!(device(1), device(2));
    }
}
