//! Tokens and signatures, as `docs/authentication.md` has it.
//!
//! Guarantees: a device acts with a signature of the authentication key that it is registered with, a
//! user with a token, an operator with a token that has the scope for it. Nothing is taken from the
//! identity key, which never signs a request.
//!
//! Leaves out: whether a device that is not known here exists. Who has no token is not told.

use std::sync::Arc;

use axum::http::{header::AUTHORIZATION, request::Parts};
use futures_util::future::{BoxFuture, FutureExt as _};
use oncekey_api::{Code, Problem, header, path, problem::Members};
use oncekey_raft::Node;
use oncekey_store::query::{Answer, Query};
use oncekey_types::{CallerId, DeviceId, UserId};
use oncekey_x3dh::{device_list::DeviceList, keys::AuthenticationPublic};
use tokio::time::Instant;

use super::{
    Authenticator, Caller, DeviceAuthority, KeysError, Received, Registered, Registering, Remover,
    Reporter,
    signature::{Expected, SignedRequest, not_its_key},
    single_header,
    tokens::{Identity, Tokens},
};
use crate::{
    check,
    config::{Http, auth},
    reply::{internal, unanswered},
};

/// Wants tokens and signatures.
pub(crate) struct Proven {
    tokens: Tokens,
    node: Node,
    settings: Box<auth::Tokens>,
    http: Http,
}

/// A device that is registered, and the key that it signs its requests with.
struct Known {
    key: AuthenticationPublic,
    registered: Registered,
}

impl Proven {
    pub(crate) async fn start(
        settings: Box<auth::Tokens>,
        node: Node,
        http: Http,
    ) -> Result<Self, KeysError> {
        let clock = node.environment().clock.clone();
        let tokens = Tokens::start(&settings, clock).await?;
        Ok(Self { tokens, node, settings, http })
    }

    /// Whom the request's token speaks for.
    async fn identity(&self, head: &Parts) -> Result<Arc<Identity>, Problem> {
        let missing = || Problem::new(Code::TokenMissing, "the field authorization is missing");
        let value = single_header(head, "authorization")?.ok_or_else(missing)?;
        let malformed = || Problem::new(Code::TokenInvalid, "authorization must be a bearer token");
        let (scheme, token) = value.split_once(' ').ok_or_else(malformed)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(malformed());
        }
        self.tokens.verify(token).await
    }

    fn signed(&self, request: Received<'_>) -> Result<SignedRequest, Problem> {
        let expected = Expected {
            now: self.node.environment().clock.now(),
            skew: self.settings.skew,
            authorities: &self.settings.authorities,
        };
        SignedRequest::read(request, expected)
    }

    /// The right to act for the device that has signed the request.
    async fn signer(
        &self,
        request: Received<'_>,
        user: &UserId,
        device: DeviceId,
    ) -> Result<DeviceAuthority, Problem> {
        let signed = self.signed(request)?;
        if signed.key_id != path::key_id(user, device) {
            return Err(not_its_key());
        }
        self.made_by(&signed, request.head, user, device).await
    }

    /// Asks the device's shard and not this node's replica: that may be behind, and still have the
    /// key of a device that was removed or replaced.
    async fn made_by(
        &self,
        signed: &SignedRequest,
        head: &Parts,
        user: &UserId,
        device: DeviceId,
    ) -> Result<DeviceAuthority, Problem> {
        match self.known(user, device).await? {
            Some(Known { key, registered }) if signed.verify(&key) => {
                Ok(DeviceAuthority { user: user.clone(), device, registered: Some(registered) })
            }
            None if self.identity(head).await.is_ok() => {
                let members = Members { device: Some(device), ..Members::default() };
                let detail = format!("device {device} is not registered");
                Err(Problem::with(Code::UnknownDevice, detail, members))
            }
            Some(_) | None => Err(not_its_key()),
        }
    }

    async fn known(&self, user: &UserId, device: DeviceId) -> Result<Option<Known>, Problem> {
        let query = Query::Peek { user: user.clone(), devices: Some(vec![device]) };
        let deadline = Instant::now() + self.http.write_timeout;
        let read = self.node.query(&query, deadline).await.map_err(|error| unanswered(&error))?;
        let Answer::Peek(peeked) = read.answer else { return Err(internal()) };
        let Some((view, _)) = peeked.as_ref().and_then(|peeked| peeked.devices.first()) else {
            return Ok(None);
        };
        // Both were checked before they were stored.
        let key = AuthenticationPublic::from_bytes(&view.authentication_key.0);
        let identity = check::stored_identity(&view.identity_key);
        let (Ok(key), Ok(identity)) = (key, identity) else { return Err(internal()) };
        let registered = Registered { registration: view.registration, identity };
        Ok(Some(Known { key, registered }))
    }

    /// A device that is registered registers anew, by the key that it has.
    async fn next_registration(
        &self,
        request: Received<'_>,
        registering: Registering<'_>,
    ) -> Result<DeviceAuthority, Problem> {
        let authority = self.signer(request, registering.user, registering.device).await?;
        let current = authority.registered.as_ref().map(|known| known.registration);
        if current != registering.follows {
            // A number that is yet to come must not get past the state machine when it has come.
            let members = Members { registration: current, ..Members::default() };
            let detail = "the registration does not follow the device's current one";
            return Err(Problem::with(Code::RegistrationChanged, detail, members));
        }
        Ok(authority)
    }

    async fn first_registration(
        &self,
        request: Received<'_>,
        registering: Registering<'_>,
    ) -> Result<DeviceAuthority, Problem> {
        let Registering { user, device, authentication_key, .. } = registering;
        self.account_of(request.head, user).await?;
        let signed = self.signed(request)?;
        let key = AuthenticationPublic::from_bytes(authentication_key).map_err(|error| {
            let pointer = Some("/authentication_key".to_owned());
            let members = Members { pointer, ..Members::default() };
            Problem::with(Code::InvalidKey, error.to_string(), members)
        })?;
        if signed.key_id != path::key_id(user, device) || !signed.verify(&key) {
            return Err(not_its_key());
        }
        Ok(DeviceAuthority { user: user.clone(), device, registered: None })
    }

    async fn account_of(&self, head: &Parts, user: &UserId) -> Result<(), Problem> {
        if self.identity(head).await?.user != *user {
            return Err(Problem::new(Code::OtherUser, "a user acts for no other"));
        }
        Ok(())
    }

    async fn check_operator(&self, head: &Parts) -> Result<(), Problem> {
        if self.identity(head).await?.is_operator { Ok(()) } else { Err(self.scope_missing()) }
    }

    fn scope_missing(&self) -> Problem {
        let detail = format!("it needs the scope {}", self.settings.operator_scope);
        Problem::new(Code::ScopeMissing, detail)
    }

    /// Whether the account key has signed a device list without the device: whoever has lost a device
    /// strikes it off with another.
    async fn is_struck_off(&self, user: &UserId, device: DeviceId) -> Result<bool, Problem> {
        let query = Query::User { user: user.clone() };
        let deadline = Instant::now() + self.http.write_timeout;
        let read = self.node.query(&query, deadline).await.map_err(|error| unanswered(&error))?;
        let Answer::User(view) = read.answer else { return Err(internal()) };
        let Some(list) = view.and_then(|view| view.device_list) else { return Ok(false) };
        // It was verified before it was stored.
        let list = DeviceList::from_bytes(&list.bytes).map_err(|_| internal())?;
        Ok(list.devices().iter().all(|listed| listed.device != device))
    }
}

impl Authenticator for Proven {
    fn caller<'a>(&'a self, head: &'a Parts) -> BoxFuture<'a, Result<Caller, Problem>> {
        async move {
            let identity = self.identity(head).await?;
            // Both have the same limit.
            let caller = CallerId::new(identity.user.as_str()).map_err(|_| internal())?;
            Ok(Caller(caller))
        }
        .boxed()
    }

    fn account<'a>(
        &'a self,
        head: &'a Parts,
        user: &'a UserId,
    ) -> BoxFuture<'a, Result<(), Problem>> {
        self.account_of(head, user).boxed()
    }

    fn device<'a>(
        &'a self,
        request: Received<'a>,
        user: &'a UserId,
        device: DeviceId,
    ) -> BoxFuture<'a, Result<DeviceAuthority, Problem>> {
        self.signer(request, user, device).boxed()
    }

    fn registration<'a>(
        &'a self,
        request: Received<'a>,
        registering: Registering<'a>,
    ) -> BoxFuture<'a, Result<DeviceAuthority, Problem>> {
        match registering.follows {
            // The state machine refuses it unless the device is not registered.
            None => self.first_registration(request, registering).boxed(),
            Some(_) => self.next_registration(request, registering).boxed(),
        }
    }

    fn remover<'a>(
        &'a self,
        request: Received<'a>,
        user: &'a UserId,
        device: DeviceId,
    ) -> BoxFuture<'a, Result<Remover, Problem>> {
        async move {
            let headers = &request.head.headers;
            if headers.contains_key(header::SIGNATURE_INPUT) || !headers.contains_key(AUTHORIZATION)
            {
                let authority = self.signer(request, user, device).await?;
                let known = authority.registered.ok_or_else(internal)?;
                return Ok(Remover::Device(known.registration));
            }
            let identity = self.identity(request.head).await?;
            if identity.is_operator {
                Ok(Remover::Operator)
            } else if identity.user == *user && self.is_struck_off(user, device).await? {
                Ok(Remover::Account)
            } else {
                Err(self.scope_missing())
            }
        }
        .boxed()
    }

    fn reporter<'a>(&'a self, request: Received<'a>) -> BoxFuture<'a, Result<Reporter, Problem>> {
        async move {
            let signed = self.signed(request)?;
            let (user, device) = path::device_of_key_id(&signed.key_id).ok_or_else(not_its_key)?;
            self.made_by(&signed, request.head, &user, device).await?;
            Ok(Reporter(signed.key_id))
        }
        .boxed()
    }

    fn operator<'a>(&'a self, head: &'a Parts) -> BoxFuture<'a, Result<(), Problem>> {
        self.check_operator(head).boxed()
    }
}
