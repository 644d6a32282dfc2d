//! Everyone may do everything: for a machine of one's own.
//!
//! Guarantees: nothing. The configuration takes it on loopback alone. The caller is who the header
//! `Oncekey-Caller` says, `anonymous` without it.

use axum::http::request::Parts;
use futures_util::future::{BoxFuture, FutureExt as _, ready};
use oncekey_api::{Code, Problem, header};
use oncekey_types::{CallerId, DeviceId, UserId};

use super::{
    Authenticator, Caller, DeviceAuthority, Received, Registering, Remover, Reporter, single_header,
};

/// Believes every request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Open;

/// The caller of requests without the header.
const ANONYMOUS: &str = "anonymous";

impl Authenticator for Open {
    fn caller<'a>(&'a self, head: &'a Parts) -> BoxFuture<'a, Result<Caller, Problem>> {
        ready(caller(head).map(Caller)).boxed()
    }

    fn account<'a>(&'a self, _: &'a Parts, _: &'a UserId) -> BoxFuture<'a, Result<(), Problem>> {
        ready(Ok(())).boxed()
    }

    fn device<'a>(
        &'a self,
        _: Received<'a>,
        user: &'a UserId,
        device: DeviceId,
    ) -> BoxFuture<'a, Result<DeviceAuthority, Problem>> {
        ready(Ok(DeviceAuthority { user: user.clone(), device, registered: None })).boxed()
    }

    fn registration<'a>(
        &'a self,
        request: Received<'a>,
        Registering { user, device, .. }: Registering<'a>,
    ) -> BoxFuture<'a, Result<DeviceAuthority, Problem>> {
        self.device(request, user, device)
    }

    fn remover<'a>(
        &'a self,
        _: Received<'a>,
        _: &'a UserId,
        _: DeviceId,
    ) -> BoxFuture<'a, Result<Remover, Problem>> {
        ready(Ok(Remover::Operator)).boxed()
    }

    fn reporter<'a>(&'a self, request: Received<'a>) -> BoxFuture<'a, Result<Reporter, Problem>> {
        ready(caller(request.head).map(|caller| Reporter(caller.into()))).boxed()
    }

    fn operator<'a>(&'a self, _: &'a Parts) -> BoxFuture<'a, Result<(), Problem>> {
        ready(Ok(())).boxed()
    }
}

fn caller(head: &Parts) -> Result<CallerId, Problem> {
    let name = single_header(head, header::CALLER)?.unwrap_or(ANONYMOUS);
    CallerId::new(name)
        .map_err(|error| Problem::new(Code::MalformedHeader, format!("{} {error}", header::CALLER)))
}
