//! Fetching bundles.
//!
//! A fetch is committed by the user's shard, or answered by this node alone when no quorum is
//! within reach in time. *Unknown is not failed*: the second kind of answer is not recorded, the
//! pop may have been committed all the same, and a retry under the same key may return the key
//! that it issued. Nothing is ever issued twice.

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    extract::State,
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::future::join_all;
use oncekey_api::{
    Code, Problem,
    bundle::{Fetch, FetchMany, Fetched, FetchedMany, Route, UserOutcome, UserResult},
    problem::Members,
};
use oncekey_raft::{Committed, SubmitError};
use oncekey_store::{
    command::{Command, Dispense},
    outcome::Outcome,
    query::{Answer, Query},
};
use oncekey_types::{DeviceId, RequestId, UserId, limits};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::{
    app::{App, nearby_deadline},
    auth::Caller,
    convert,
    extract::{IdempotencyKey, JsonBody, NoQuery, UserPath},
    metrics::FetchOutcome,
    reply::{Rejection, Routed, internal, unanswered, with_route},
};

type Shared = State<Arc<App>>;

/// `POST /v1/users/{user}/bundles`
pub(crate) async fn fetch(
    State(app): Shared,
    UserPath(user): UserPath,
    Caller(caller): Caller,
    IdempotencyKey(request): IdempotencyKey,
    JsonBody(body): JsonBody<Fetch>,
) -> Result<Response, Rejection> {
    check_devices(body.devices.as_deref(), "/devices")?;
    let dispense = Dispense {
        user,
        devices: body.devices,
        caller,
        request,
        require_one_time_prekey: body.require_opk,
    };
    let (route, outcome) = answer(&app, dispense).await;
    Ok(match outcome {
        Ok(fetched) => Routed(route, fetched).into_response(),
        Err(problem) => with_route(&route, Rejection(problem).into_response()),
    })
}

/// `POST /v1/bundles`
pub(crate) async fn fetch_many(
    State(app): Shared,
    NoQuery: NoQuery,
    Caller(caller): Caller,
    IdempotencyKey(request): IdempotencyKey,
    JsonBody(body): JsonBody<FetchMany>,
) -> Result<axum::Json<FetchedMany>, Rejection> {
    check_users(&body)?;
    let fetches = body.users.into_iter().map(|fetch| {
        let dispense = Dispense {
            request: request_of_user(&request, &fetch.user),
            user: fetch.user.clone(),
            devices: fetch.devices,
            caller: caller.clone(),
            require_one_time_prekey: body.require_opk,
        };
        let app = &app;
        async move {
            let (route, outcome) = answer(app, dispense).await;
            let outcome = match outcome {
                Ok(fetched) => UserOutcome::Fetched(fetched),
                Err(problem) => UserOutcome::Problem(problem),
            };
            UserResult { user: fetch.user, route, outcome }
        }
    });
    Ok(axum::Json(FetchedMany { results: join_all(fetches).await }))
}

/// Answers the fetch of one user and counts it.
async fn answer(app: &App, dispense: Dispense) -> (Route, Result<Fetched, Problem>) {
    let deadline = Instant::now() + app.http.fetch_timeout;
    let user = dispense.user.clone();
    let (route, outcome) =
        match app.node.submit(&user, Command::Dispense(dispense.clone()), deadline).await {
            Ok(committed) => committed_answer(app, user, committed),
            Err(error @ SubmitError::NoQuorum { .. }) => local_answer(app, dispense, &error).await,
            Err(error) => {
                let route = app.route(app.node.shard_of(&user), None, None);
                (route, Err(unanswered(&error)))
            }
        };
    count(app, &outcome);
    (route, outcome)
}

fn committed_answer(
    app: &App,
    user: UserId,
    committed: Committed,
) -> (Route, Result<Fetched, Problem>) {
    let Committed { outcome, shard, index, leader, .. } = committed;
    let (index, outcome) = match outcome {
        // A repeated answer carries the index of the original.
        Outcome::Dispensed(dispensed) => (dispensed.index, Ok(convert::dispensed(user, dispensed))),
        Outcome::Refused(refusal) => (index, Err(Rejection::from(refusal).0)),
        _ => (index, Err(internal())),
    };
    (app.route(shard, Some(leader), Some(index)), outcome)
}

/// The answer of this node's replica, or of another one in reach, without one-time prekeys.
async fn local_answer(
    app: &App,
    dispense: Dispense,
    error: &SubmitError,
) -> (Route, Result<Fetched, Problem>) {
    let nobody = app.route(app.node.shard_of(&dispense.user), None, None);
    if dispense.require_one_time_prekey {
        return (nobody, Err(unanswered(error)));
    }
    let Dispense { user, devices, .. } = dispense;
    let query = Query::Peek { user: user.clone(), devices };
    match app.node.query_nearby(&query, nearby_deadline()).await {
        Ok(None) => (nobody, Err(unanswered(error))),
        Ok(Some(read)) => {
            let route = app.route(read.shard, read.leader, None);
            match read.answer {
                Answer::Peek(Some(peeked)) => {
                    (route, Ok(convert::peeked(user, peeked, read.as_of.unwrap_or_default())))
                }
                // A replica that lags may not know the user yet.
                _ => (route, Err(unanswered(error))),
            }
        }
        Err(fault) => (nobody, Err(unanswered(&SubmitError::Fault(fault)))),
    }
}

fn count(app: &App, outcome: &Result<Fetched, Problem>) {
    let outcome = match outcome {
        Err(_) => FetchOutcome::Refused,
        Ok(fetched) if fetched.repeated => FetchOutcome::Repeated,
        Ok(fetched) => {
            if fetched.as_of.is_none() {
                FetchOutcome::Fresh
            } else {
                app.metrics.unavailable(fetched.bundles.len());
                FetchOutcome::Unavailable
            }
        }
    };
    app.metrics.fetch(outcome);
}

fn check_users(body: &FetchMany) -> Result<(), Problem> {
    let users = body.users.len();
    if users == 0 || users > limits::USERS_PER_FETCH_MAX {
        let detail = format!("{users} users, allowed are 1 to {}", limits::USERS_PER_FETCH_MAX);
        return Err(over_limit(detail, "/users", limits::USERS_PER_FETCH_MAX));
    }
    let mut seen = BTreeSet::new();
    for (position, fetch) in body.users.iter().enumerate() {
        if !seen.insert(&fetch.user) {
            let pointer = format!("/users/{position}/user");
            return Err(over_limit("the user stands twice".to_owned(), &pointer, 1));
        }
        let pointer = format!("/users/{position}/devices");
        check_devices(fetch.devices.as_deref(), &pointer)?;
    }
    Ok(())
}

fn check_devices(devices: Option<&[DeviceId]>, pointer: &str) -> Result<(), Problem> {
    let Some(devices) = devices else { return Ok(()) };
    let number = devices.len();
    if number == 0 || number > limits::DEVICES_PER_USER_MAX {
        let detail = format!("{number} devices, allowed are 1 to {}", limits::DEVICES_PER_USER_MAX);
        return Err(over_limit(detail, pointer, limits::DEVICES_PER_USER_MAX));
    }
    if !devices.windows(2).all(|pair| pair[0] < pair[1]) {
        let detail = "the devices are not in growing order".to_owned();
        return Err(over_limit(detail, pointer, limits::DEVICES_PER_USER_MAX));
    }
    Ok(())
}

fn over_limit(detail: String, pointer: &str, limit: usize) -> Problem {
    let members = Members {
        pointer: Some(pointer.to_owned()),
        limit: u64::try_from(limit).ok(),
        ..Members::default()
    };
    Problem::with(Code::LimitExceeded, detail, members)
}

/// The name of one user's part of a multi-user fetch; documented at
/// [`FetchMany`](oncekey_api::bundle::FetchMany).
///
/// Users of one shard share its table of retries, so each part needs a name of its own; and it must
/// not depend on the other users, so that a retry may name fewer of them.
fn request_of_user(request: &RequestId, user: &UserId) -> RequestId {
    // A request id is at most 64 bytes long.
    let length = u16::try_from(request.as_bytes().len()).unwrap_or(u16::MAX);
    let hash = Sha256::new()
        .chain_update(b"oncekey multi-user fetch v1")
        .chain_update(length.to_be_bytes())
        .chain_update(request.as_bytes())
        .chain_update(user.as_bytes())
        .finalize();
    #[expect(clippy::expect_used, reason = "43 characters of base64url are a request id")]
    RequestId::new(URL_SAFE_NO_PAD.encode(hash)).expect("base64url is visible ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_users_part_is_fixed() {
        // python3: urlsafe_b64encode(sha256(b"oncekey multi-user fetch v1" + b"\0\3" + b"key" + b"bob").digest())
        let name = |key: &str, user: &str| {
            request_of_user(&RequestId::new(key).unwrap(), &UserId::new(user).unwrap()).to_string()
        };
        assert_eq!(name("key", "bob"), "C0QazAJTRBI4hb_UsaUcTf49FhTYrllxX7pKCNVyjMQ");
        assert_ne!(name("key", "bob"), name("keyb", "ob"));
    }
}
