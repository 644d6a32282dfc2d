//! A server on a real socket that lies as a test tells it to.
//!
//! Behind the socket stands the honest server of the other tests. A lie is a function from a call
//! and the honest reply to what is sent instead, for all callers or for one; so the same server
//! can show two clients two worlds.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_LENGTH, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use oncekey_api::{Problem, bundle::Fetched, device::Status, header, user::User};
use oncekey_types::{CallerId, RequestId, Slot};
use parking_lot::Mutex;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::TcpListener, task::JoinSet};

use super::super::user_id;
use crate::{
    fake::FakeServer,
    http::{AnyNode, Config},
    transport::{Call, Credentials, Method},
};

/// What is sent instead of the honest reply to a call.
pub(super) type Lie = Box<dyn FnMut(&Call, &mut Reply) + Send>;

/// Who is lied to.
pub(super) enum Whom {
    Everyone,
    Caller(&'static str),
}

/// A reply on its way out.
pub(super) struct Reply {
    status: u16,
    body: Vec<u8>,
    /// Length that the head announces.
    announced: usize,
}

pub(super) struct LyingServer {
    address: String,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

struct Shared {
    honest: FakeServer,
    lies: Mutex<Vec<(Whom, Lie)>>,
    wire: Mutex<Vec<Vec<u8>>>,
}

impl LyingServer {
    pub(super) async fn start(honest: FakeServer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared { honest, lies: Mutex::default(), wire: Mutex::default() });
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, Arc::clone(&shared)));
        Self { address, shared, _tasks: tasks }
    }

    /// Tells a lie from now on, after those told before.
    pub(super) fn lie(&self, whom: Whom, lie: Lie) {
        self.shared.lies.lock().push((whom, lie));
    }

    /// Tells no more lies.
    pub(super) fn repent(&self) {
        self.shared.lies.lock().clear();
    }

    /// Paths and bodies of all requests, and bodies of all replies.
    pub(super) fn wire(&self) -> Vec<Vec<u8>> {
        self.shared.wire.lock().clone()
    }

    /// A client of this server that does not wait long.
    pub(super) fn client(&self, caller: &str) -> AnyNode {
        let endpoints = vec![self.address.parse().unwrap()];
        let mut config = Config::new(endpoints, CallerId::new(caller).unwrap()).unwrap();
        config.backoff.first = Duration::from_millis(1);
        config.backoff.cap = Duration::from_millis(1);
        AnyNode::new(config)
    }
}

/// Changes replies to the fetch of one user.
pub(super) fn fetched(mut lie: impl FnMut(&mut Fetched) + Send + 'static) -> Lie {
    Box::new(move |call, reply| {
        if call.method == Method::Post && call.path.ends_with("/bundles") {
            reply.change(&mut lie);
        }
    })
}

/// Changes what is shown of users.
pub(super) fn shown(mut lie: impl FnMut(&mut User) + Send + 'static) -> Lie {
    Box::new(move |call, reply| {
        if call.method == Method::Get && call.path.matches('/').count() == 3 {
            reply.change(&mut lie);
        }
    })
}

/// Changes what devices are told of themselves.
pub(super) fn status(mut lie: impl FnMut(&mut Status) + Send + 'static) -> Lie {
    Box::new(move |call, reply| {
        if call.method == Method::Get && call.path.ends_with("/prekeys") {
            reply.change(&mut lie);
        }
    })
}

/// Answers whatever is about `user` as `other` does.
pub(super) fn another_world(user: &str, other: FakeServer) -> Lie {
    let about = oncekey_api::path::user(&user_id(user));
    Box::new(move |call, reply| {
        if call.path.starts_with(&about) {
            *reply = Reply::of(other.answer(call));
        }
    })
}

/// Ends every reply after `kept` of its bytes.
pub(super) fn cut(kept: impl Fn(usize) -> usize + Send + 'static) -> Lie {
    Box::new(move |_, reply| reply.body.truncate(kept(reply.announced)))
}

impl Reply {
    fn of(answer: Result<Vec<u8>, Problem>) -> Self {
        let (status, body) = match answer {
            Ok(body) => (200, body),
            Err(problem) => (problem.code.status(), serde_json::to_vec(&problem).unwrap()),
        };
        Self { status, announced: body.len(), body }
    }

    pub(super) fn change<T: Serialize + DeserializeOwned>(&mut self, lie: &mut impl FnMut(&mut T)) {
        if self.status == 200 {
            let mut reply = serde_json::from_slice(&self.body).unwrap();
            lie(&mut reply);
            self.body = serde_json::to_vec(&reply).unwrap();
            self.announced = self.body.len();
        }
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        let service = service_fn(move |request| {
            let shared = Arc::clone(&shared);
            async move { Ok::<_, Infallible>(answer(request, &shared).await) }
        });
        connections.spawn(async move {
            // A reply that is cut ends its connection with an error.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(request: Request<Incoming>, shared: &Shared) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let text = |name: &str| head.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let caller = text(header::CALLER).unwrap();
    let call = Call {
        method: match head.method {
            hyper::Method::GET => Method::Get,
            hyper::Method::PUT => Method::Put,
            hyper::Method::DELETE => Method::Delete,
            _ => Method::Post,
        },
        path: head.uri.to_string(),
        body: body.collect().await.unwrap().to_bytes(),
        idempotency_key: text(header::IDEMPOTENCY_KEY).map(|key| RequestId::new(key).unwrap()),
        // Of no account here.
        slot: Slot::of(&user_id("nobody")),
        credentials: Credentials::Token,
    };
    let mut reply = Reply::of(shared.honest.answer(&call));
    for (whom, lie) in shared.lies.lock().iter_mut() {
        match whom {
            Whom::Caller(other) if *other != caller => {}
            Whom::Caller(_) | Whom::Everyone => lie(&call, &mut reply),
        }
    }
    let seen = [call.path.clone().into_bytes(), call.body.to_vec(), reply.body.clone()];
    shared.wire.lock().extend(seen);
    let mut response = Response::new(Full::new(Bytes::from(reply.body)));
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap();
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(reply.announced));
    response
}
