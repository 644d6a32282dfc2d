//! What a device writes and reads about itself.

use std::sync::Arc;

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use oncekey_api::{Code, Problem, device, problem::Members};
use oncekey_store::{
    command::{AddOneTimePreKeys, Command, RemoveDevice, ReplaceSignedPreKey, WriteTag},
    outcome::Outcome,
    query::{Answer, Query},
};
use oncekey_types::DeviceId;
use oncekey_x3dh::Address;

use crate::{
    app::App,
    auth::{DeviceAuthority, Registered, Remover},
    check, convert,
    extract::{DeviceWrite, Registration, Removal},
    reply::{Rejection, Routed, internal, with_route},
};

type Shared = State<Arc<App>>;

/// `PUT /v1/users/{user}/devices/{device}`
pub(crate) async fn register(
    State(app): Shared,
    Registration(write): Registration,
) -> Result<Routed<device::Registered>, Rejection> {
    let DeviceWrite { authority, body, digest } = write;
    let user = authority.user.clone();
    // The authentication key, the signed prekey and the device list are signed too.
    let signatures = body.one_time_prekeys.len() + 3;
    let time = app.now().to_seconds();
    let command =
        app.verify(signatures, move || check::register(&authority, digest, body, time)).await?;
    match app.commit(&user, Command::Register(command)).await? {
        (route, Outcome::Registered(registered)) => Ok(Routed(
            route,
            device::Registered {
                registration: registered.registration,
                pool: convert::pool(registered.pool, app.low_watermark),
            },
        )),
        _ => Err(internal().into()),
    }
}

/// `PUT /v1/users/{user}/devices/{device}/signed-prekey`
pub(crate) async fn replace_signed_prekey(
    State(app): Shared,
    write: DeviceWrite<device::ReplaceSignedPreKey>,
) -> Result<Routed<device::Pool>, Rejection> {
    let DeviceWrite { authority, body, digest } = write;
    let Registered { registration, identity } = registered(&app, &authority).await?;
    let owner = Address::new(&authority.user, authority.device);
    let time = app.now().to_seconds();
    let signed_prekey = app
        .verify(1, move || check::signed_prekey(&owner, &identity, body.signed_prekey, time))
        .await?;
    let command = Command::ReplaceSignedPreKey(ReplaceSignedPreKey {
        user: authority.user.clone(),
        device: authority.device,
        tag: WriteTag { seq: body.seq, digest },
        registration,
        signed_prekey,
        epoch: body.epoch,
    });
    match app.commit(&authority.user, command).await? {
        (route, Outcome::SignedPreKeyReplaced(pool)) => {
            Ok(Routed(route, convert::pool(pool, app.low_watermark)))
        }
        _ => Err(internal().into()),
    }
}

/// `POST /v1/users/{user}/devices/{device}/one-time-prekeys`
pub(crate) async fn add_one_time_prekeys(
    State(app): Shared,
    write: DeviceWrite<device::AddOneTimePreKeys>,
) -> Result<Routed<device::Pool>, Rejection> {
    let DeviceWrite { authority, body, digest } = write;
    let Registered { registration, identity } = registered(&app, &authority).await?;
    let owner = Address::new(&authority.user, authority.device);
    let signatures = body.one_time_prekeys.len();
    let one_time_prekeys = app
        .verify(signatures, move || {
            check::one_time_prekeys(&owner, &identity, body.one_time_prekeys)
        })
        .await?;
    let command = Command::AddOneTimePreKeys(AddOneTimePreKeys {
        user: authority.user.clone(),
        device: authority.device,
        tag: WriteTag { seq: body.seq, digest },
        registration,
        one_time_prekeys,
        epoch: body.epoch,
    });
    match app.commit(&authority.user, command).await? {
        (route, Outcome::OneTimePreKeysAdded(pool)) => {
            Ok(Routed(route, convert::pool(pool, app.low_watermark)))
        }
        _ => Err(internal().into()),
    }
}

/// `GET /v1/users/{user}/devices/{device}/prekeys`
pub(crate) async fn status(
    State(app): Shared,
    authority: DeviceAuthority,
) -> Result<Routed<device::Status>, Rejection> {
    let DeviceAuthority { user, device, .. } = authority;
    let query = Query::Status { user, device };
    let read = app.node.query(&query, app.write_deadline()).await?;
    let route = app.route(read.shard, Some(read.leader), Some(read.index));
    match read.answer {
        Answer::Status(Some(status)) => {
            Ok(Routed(route, convert::status(status, app.low_watermark, app.now())))
        }
        Answer::Status(None) => Err(unknown_device(device).into()),
        _ => Err(internal().into()),
    }
}

/// `DELETE /v1/users/{user}/devices/{device}`
pub(crate) async fn remove(State(app): Shared, removal: Removal) -> Result<Response, Rejection> {
    let Removal { user, device, remover, seq } = removal;
    let registration = match remover {
        Remover::Device(registration) => Some(registration),
        Remover::Account | Remover::Operator => None,
    };
    let command =
        Command::RemoveDevice(RemoveDevice { user: user.clone(), device, seq, registration });
    match app.commit(&user, command).await? {
        (route, Outcome::DeviceRemoved) => {
            Ok(with_route(&route, StatusCode::NO_CONTENT.into_response()))
        }
        _ => Err(internal().into()),
    }
}

/// The device's registration and its identity key. The state machine refuses what was checked
/// against a registration that is no longer the current one.
async fn registered(app: &App, authority: &DeviceAuthority) -> Result<Registered, Rejection> {
    if let Some(registered) = &authority.registered {
        return Ok(registered.clone());
    }
    let devices = Some(vec![authority.device]);
    let query = Query::Peek { user: authority.user.clone(), devices };
    match app.node.query(&query, app.write_deadline()).await?.answer {
        Answer::Peek(Some(peeked)) => {
            let (view, _) = peeked.devices.first().ok_or_else(internal)?;
            // It was checked before it was stored.
            let identity = check::stored_identity(&view.identity_key).map_err(|_| internal())?;
            Ok(Registered { registration: view.registration, identity })
        }
        Answer::Peek(None) => Err(unknown_device(authority.device).into()),
        _ => Err(internal().into()),
    }
}

fn unknown_device(device: DeviceId) -> Problem {
    let members = Members { device: Some(device), ..Members::default() };
    Problem::with(Code::UnknownDevice, format!("device {device} is not registered"), members)
}
