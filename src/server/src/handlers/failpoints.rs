//! Points at which the node dies when a test tells it to. In no production build.

use axum::{Json, extract::Path, http::StatusCode};
use oncekey_api::{Code, Problem, cluster::Arm};
use oncekey_raft::failpoint::{self, Point};

use crate::{extract::JsonBody, reply::Rejection};

/// `GET /failpoints`
pub(crate) async fn list() -> Json<Vec<&'static str>> {
    Json(failpoint::ALL.map(Point::name).into())
}

/// `PUT /failpoints/{name}`
pub(crate) async fn arm(
    Path(name): Path<String>,
    JsonBody(Arm { count }): JsonBody<Arm>,
) -> Result<StatusCode, Rejection> {
    find(&name)?.arm(count).map_err(|reason| Problem::new(Code::InvalidBody, reason))?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /failpoints/{name}`
pub(crate) async fn disarm(Path(name): Path<String>) -> Result<StatusCode, Rejection> {
    find(&name)?.disarm();
    Ok(StatusCode::NO_CONTENT)
}

fn find(name: &str) -> Result<Point, Problem> {
    let point = failpoint::ALL.into_iter().find(|point| point.name() == name);
    point.ok_or_else(|| Problem::new(Code::NotFound, "no such point"))
}
