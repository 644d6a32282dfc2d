//! Who asks, and what they may do.
//!
//! Guarantees: a handler that acts for a device holds a `DeviceAuthority`, and only an
//! `Authenticator` makes one; a handler that dispenses holds a `Caller`. A token or a signature
//! never gets into a log.
//!
//! Leaves out: policy beyond the contract of `docs/authentication.md`; limits, which are the state
//! machine's and the edge's.
//!
//! `Proven` wants tokens and signatures, `Open` believes every request and is for one machine
//! alone. Below them: `tokens` (whom the operator's account system vouches for) and `signature`
//! (what a device signed).

mod challenge;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod open;
mod proven;
mod signature;
mod tokens;

use axum::http::{HeaderName, request::Parts};
use futures_util::future::BoxFuture;
use oncekey_api::{Code, Problem};
use oncekey_types::{CallerId, DeviceId, RegistrationId, UserId};
use oncekey_x3dh::keys::IdentityPublic;

pub use self::tokens::KeysError;
pub(crate) use self::{challenge::challenge, open::Open, proven::Proven};

/// Who asks, as far as limits and retries are concerned.
#[derive(Clone, Debug)]
pub(crate) struct Caller(pub(crate) CallerId);

/// The right to act for one device.
#[derive(Clone, Debug)]
pub(crate) struct DeviceAuthority {
    /// The device's owner.
    pub(crate) user: UserId,
    /// The device.
    pub(crate) device: DeviceId,
    /// The registration whose authentication key signed the request; none when none did.
    pub(crate) registered: Option<Registered>,
}

/// A device as it was registered when its request came.
#[derive(Clone, Debug)]
pub(crate) struct Registered {
    /// The registration.
    pub(crate) registration: RegistrationId,
    /// Its identity key.
    pub(crate) identity: IdentityPublic,
}

/// Who has a device removed.
#[derive(Clone, Debug)]
pub(crate) enum Remover {
    /// The device itself, by its registration.
    Device(RegistrationId),
    /// Its user, whose signed device list names it no more.
    Account,
    /// An operator, or whoever can reach an open node.
    Operator,
}

/// A device that reports, as far as limits are concerned.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Reporter(pub(crate) String);

/// A request with its body, empty when there is none.
#[derive(Clone, Copy)]
pub(crate) struct Received<'a> {
    /// Method, target and headers.
    pub(crate) head: &'a Parts,
    /// The body as it arrived.
    pub(crate) body: &'a [u8],
}

/// The registration of a device, as far as it matters to who may make it.
#[derive(Clone, Copy)]
pub(crate) struct Registering<'a> {
    /// The owner that the path names.
    pub(crate) user: &'a UserId,
    /// The device that the path names.
    pub(crate) device: DeviceId,
    /// The registration that it replaces; none when it is the device's first.
    pub(crate) follows: Option<RegistrationId>,
    /// The authentication key that it brings.
    pub(crate) authentication_key: &'a [u8],
}

/// Decides who asks.
pub(crate) trait Authenticator: Send + Sync + 'static {
    /// Who asks for bundles, or to see a user.
    fn caller<'a>(&'a self, head: &'a Parts) -> BoxFuture<'a, Result<Caller, Problem>>;

    /// Whether the request may act for the account of `user`.
    fn account<'a>(
        &'a self,
        head: &'a Parts,
        user: &'a UserId,
    ) -> BoxFuture<'a, Result<(), Problem>>;

    /// Whether the request may act for the device that its path names.
    fn device<'a>(
        &'a self,
        request: Received<'a>,
        user: &'a UserId,
        device: DeviceId,
    ) -> BoxFuture<'a, Result<DeviceAuthority, Problem>>;

    /// Whether the request may register the device.
    fn registration<'a>(
        &'a self,
        request: Received<'a>,
        registering: Registering<'a>,
    ) -> BoxFuture<'a, Result<DeviceAuthority, Problem>>;

    /// Who has the device removed, if the request may.
    fn remover<'a>(
        &'a self,
        request: Received<'a>,
        user: &'a UserId,
        device: DeviceId,
    ) -> BoxFuture<'a, Result<Remover, Problem>>;

    /// The device that reports.
    fn reporter<'a>(&'a self, request: Received<'a>) -> BoxFuture<'a, Result<Reporter, Problem>>;

    /// Whether the request is an operator's.
    fn operator<'a>(&'a self, head: &'a Parts) -> BoxFuture<'a, Result<(), Problem>>;
}

/// The value of a header that may stand at most once.
///
/// # Errors
///
/// [`Code::MalformedHeader`] when it stands twice or is not visible ASCII.
pub(crate) fn single_header<'a>(
    head: &'a Parts,
    name: &'static str,
) -> Result<Option<&'a str>, Problem> {
    let malformed = |what| Problem::new(Code::MalformedHeader, format!("{name} {what}"));
    let mut values = head.headers.get_all(HeaderName::from_static(name)).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(malformed("stands more than once"));
    }
    value.to_str().map(Some).map_err(|_| malformed("is not visible ASCII"))
}
