//! A user's devices and device list.

use std::sync::Arc;

use axum::extract::State;
use oncekey_api::{Code, Problem, key::DeviceList, user};
use oncekey_raft::SubmitError;
use oncekey_store::{
    command::{Command, PutDeviceList},
    outcome::Outcome,
    query::{Answer, Query},
};
use oncekey_types::UserId;

use crate::{
    app::{App, nearby_deadline},
    auth::Caller,
    check, convert,
    extract::{AccountWrite, UserPath},
    reply::{Rejection, Routed, internal, unanswered},
};

type Shared = State<Arc<App>>;

/// `GET /v1/users/{user}`
///
/// Without a quorum within reach it is answered from this node's replica, with the age of the
/// data: whoever pins device lists notices when one is rolled back.
pub(crate) async fn user(
    State(app): Shared,
    UserPath(user): UserPath,
    _: Caller,
) -> Result<Routed<user::User>, Rejection> {
    let query = Query::User { user: user.clone() };
    match app.node.query(&query, app.write_deadline()).await {
        Ok(read) => match read.answer {
            Answer::User(Some(view)) => {
                let route = app.route(read.shard, Some(read.leader), Some(read.index));
                Ok(Routed(route, convert::user(view, None)))
            }
            Answer::User(None) => {
                Err(Problem::new(Code::UnknownUser, "the user is not known").into())
            }
            _ => Err(internal().into()),
        },
        Err(error @ SubmitError::NoQuorum { .. }) => local_user(&app, &user, &error).await,
        Err(error) => Err(error.into()),
    }
}

async fn local_user(
    app: &App,
    user: &UserId,
    error: &SubmitError,
) -> Result<Routed<user::User>, Rejection> {
    let query = Query::User { user: user.clone() };
    let read = app.node.query_nearby(&query, nearby_deadline()).await;
    let Some(read) = read.map_err(SubmitError::Fault)? else {
        return Err(unanswered(error).into());
    };
    match read.answer {
        Answer::User(Some(view)) => {
            let route = app.route(read.shard, read.leader, None);
            Ok(Routed(route, convert::user(view, Some(read.as_of.unwrap_or_default()))))
        }
        // A replica that lags may not know the user yet.
        _ => Err(unanswered(error).into()),
    }
}

/// `PUT /v1/users/{user}/device-list`
///
/// The list is signed by the account key; that the account is the user's, for a first list above all,
/// only the operator's account system can say.
pub(crate) async fn put_device_list(
    State(app): Shared,
    AccountWrite { user, body: list }: AccountWrite<DeviceList>,
) -> Result<Routed<user::DeviceListPut>, Rejection> {
    let of = user.clone();
    let list = app.verify(1, move || check::device_list(&of, list, "")).await?;
    let command = Command::PutDeviceList(PutDeviceList { user: user.clone(), list });
    match app.commit(&user, command).await? {
        (route, Outcome::DeviceListPut { seq }) => Ok(Routed(route, user::DeviceListPut { seq })),
        _ => Err(internal().into()),
    }
}
