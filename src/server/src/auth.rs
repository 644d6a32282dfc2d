//! Who asks.
//!
//! Guarantees: a handler that acts for a device holds a [`DeviceAuthority`], and only an
//! [`Authenticator`] makes one; a handler that dispenses holds a [`Caller`].
//!
//! Leaves out: proof. The one authenticator there is, [`Open`], believes every request: it must
//! not face a network where not everyone is trusted. Tokens and request signatures are further
//! implementations of the same trait; its methods see all that these need.

use axum::http::{HeaderName, request::Parts};
use futures_util::future::BoxFuture;
use oncekey_api::{Code, Problem, header};
use oncekey_types::{CallerId, DeviceId, UserId};

/// Who asks, as far as limits and retries are concerned.
#[derive(Clone, Debug)]
pub struct Caller(pub CallerId);

/// The right to act for one device.
#[derive(Clone, Debug)]
pub struct DeviceAuthority {
    /// The device's owner.
    pub user: UserId,
    /// The device.
    pub device: DeviceId,
}

/// A request of a device, as it arrived.
pub struct DeviceRequest<'a> {
    /// Method, target and headers.
    pub head: &'a Parts,
    /// The body; empty when there is none.
    pub body: &'a [u8],
    /// The owner that the path names.
    pub user: &'a UserId,
    /// The device that the path names.
    pub device: DeviceId,
}

/// Decides who asks.
pub trait Authenticator: Send + Sync + 'static {
    /// Who asks for bundles.
    fn caller<'a>(&'a self, head: &'a Parts) -> BoxFuture<'a, Result<Caller, Problem>>;

    /// Whether the request may act for the device it names.
    fn device<'a>(
        &'a self,
        request: DeviceRequest<'a>,
    ) -> BoxFuture<'a, Result<DeviceAuthority, Problem>>;
}

/// Believes every request: the caller is who the header `Oncekey-Caller` says, `anonymous` without
/// it, and everyone may act for every device.
#[derive(Clone, Copy, Debug, Default)]
pub struct Open;

/// The caller of requests without the header.
const ANONYMOUS: &str = "anonymous";

impl Authenticator for Open {
    fn caller<'a>(&'a self, head: &'a Parts) -> BoxFuture<'a, Result<Caller, Problem>> {
        Box::pin(async move {
            let name = single_header(head, header::CALLER)?.unwrap_or(ANONYMOUS);
            let caller = CallerId::new(name).map_err(|error| {
                Problem::new(Code::MalformedHeader, format!("{} {error}", header::CALLER))
            })?;
            Ok(Caller(caller))
        })
    }

    fn device<'a>(
        &'a self,
        request: DeviceRequest<'a>,
    ) -> BoxFuture<'a, Result<DeviceAuthority, Problem>> {
        Box::pin(async move {
            Ok(DeviceAuthority { user: request.user.clone(), device: request.device })
        })
    }
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
