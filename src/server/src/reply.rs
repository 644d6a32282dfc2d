//! Replies: problems as documents, and where an answer comes from.
//!
//! Guarantees: every error leaves as a problem document with the status of its code; an error of
//! consensus that leaves the outcome open says so. Leaves out: metrics and logs, which read the
//! [`Code`] that a reply carries along.

use axum::{
    Json,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use oncekey_api::{
    Code, Problem,
    bundle::{OneTimePreKeyStatus, Route},
    header as names,
    problem::Members,
};
use oncekey_planted::{self as planted, Bug};
use oncekey_raft::SubmitError;
use oncekey_store::outcome::Refusal;
use serde::Serialize;

use crate::auth::challenge;

/// Seconds after which a client that was turned away may come back.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// A problem on its way out.
#[derive(Debug)]
pub(crate) struct Rejection(pub(crate) Problem);

impl From<Problem> for Rejection {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl From<SubmitError> for Rejection {
    fn from(error: SubmitError) -> Self {
        Self(unanswered(&error))
    }
}

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        Self(refused(refusal))
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        let code = self.0.code;
        let status =
            StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self.0)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(names::PROBLEM_JSON));
        let come_back = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
        if code.is_retryable() && come_back {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER_SECONDS);
        }
        challenge(code, headers);
        response.extensions_mut().insert(code);
        response
    }
}

/// An answer with the headers that say where it comes from.
pub(crate) struct Routed<T>(pub(crate) Route, pub(crate) T);

impl<T: Serialize> IntoResponse for Routed<T> {
    fn into_response(self) -> Response {
        with_route(&self.0, Json(self.1).into_response())
    }
}

/// Adds the headers of `route` to `response`.
pub(crate) fn with_route(route: &Route, mut response: Response) -> Response {
    let leader = route.leader.as_deref().and_then(|leader| HeaderValue::from_str(leader).ok());
    let values = [
        (names::SHARD, Some(HeaderValue::from(route.shard.0))),
        (names::LEADER, leader),
        (names::INDEX, route.index.map(|index| HeaderValue::from(index.0))),
    ];
    for (name, value) in values {
        if let Some(value) = value {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    response
}

/// The problem of a request that got no answer from its shard.
pub(crate) fn unanswered(error: &SubmitError) -> Problem {
    match error {
        SubmitError::NoQuorum { .. } if planted::is(Bug::UnknownIsFailed) => {
            Problem::new(Code::UnknownUser, "nothing was done")
        }
        SubmitError::NoQuorum { .. } => Problem::new(
            Code::NoQuorum,
            "no quorum of the shard answered in time; whether a write was carried out is unknown, \
             and the same request sent again finds out",
        ),
        SubmitError::Overloaded { .. } => {
            Problem::new(Code::Overloaded, "too many requests wait for the shard")
        }
        SubmitError::ShuttingDown => Problem::new(Code::ShuttingDown, "ask another node"),
        SubmitError::Fault(_) => {
            Problem::new(Code::Internal, "the node has a local fault and stops; ask another node")
        }
        // The enum may grow; what is not known leaves the outcome open.
        _ => internal(),
    }
}

/// The problem of an answer that does not fit its question.
pub(crate) fn internal() -> Problem {
    Problem::new(Code::Internal, "the node could not answer")
}

/// The problem that stands for a refusal of the state machine.
fn refused(refusal: Refusal) -> Problem {
    let detail = refusal.to_string();
    let none = Members::default();
    let (code, members) = match refusal {
        Refusal::UnknownUser => (Code::UnknownUser, none),
        Refusal::UnknownDevice { device } => {
            (Code::UnknownDevice, Members { device: Some(device), ..none })
        }
        Refusal::TooManyDevices { limit } => {
            (Code::TooManyDevices, Members { limit: Some(limit.into()), ..none })
        }
        Refusal::StaleSeq { given: _, last } => {
            (Code::StaleSeq, Members { seq: Some(last), ..none })
        }
        Refusal::OtherRegistration { current } => {
            (Code::RegistrationChanged, Members { registration: Some(current), ..none })
        }
        Refusal::DoesNotFollow { current } => {
            (Code::RegistrationChanged, Members { registration: current, ..none })
        }
        Refusal::SignedPreKeyIdNotGrowing { given: _, current } => {
            (Code::SignedPreKeyIdNotGrowing, Members { signed_prekey: Some(current), ..none })
        }
        Refusal::OneTimePreKeyIdsNotGrowing { conflicts, highest } => (
            Code::OneTimePreKeyIdsNotGrowing,
            Members { conflicts, highest: Some(highest), ..none },
        ),
        Refusal::PoolFull { count, given: _, limit } => (
            Code::PoolFull,
            Members { count: Some(count.into()), limit: Some(limit.into()), ..none },
        ),
        Refusal::Malformed { what: _ } => (Code::LimitExceeded, none),
        Refusal::DeviceListOutOfOrder { given: _, expected } => {
            (Code::DeviceListOutOfOrder, Members { expected: Some(expected), ..none })
        }
        Refusal::DeviceListBrokenChain => (Code::DeviceListBrokenChain, none),
        Refusal::DeviceListOtherAccount => (Code::DeviceListOtherAccount, none),
        Refusal::RequestIdConflict => (Code::IdempotencyKeyReused, none),
        Refusal::OneTimePreKeyRequired { device, withheld } => {
            let status = if withheld {
                OneTimePreKeyStatus::Withheld
            } else {
                OneTimePreKeyStatus::Exhausted
            };
            let members =
                Members { device: Some(device), one_time_prekey_status: Some(status), ..none };
            (Code::OneTimePreKeyRequired, members)
        }
        Refusal::OtherEpoch { given: _, current } => {
            (Code::EpochChanged, Members { epoch: Some(current), ..none })
        }
        Refusal::BeingRestored => (Code::NotReady, none),
        Refusal::NotNew | Refusal::NoRestore => (Code::ClusterNotNew, none),
    };
    Problem::with(code, detail, members)
}
