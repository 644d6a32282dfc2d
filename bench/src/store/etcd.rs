//! etcd: read the first key of the pool, then delete it in a transaction if it is still there.
//!
//! A transaction cannot delete what it finds, so a pop takes two round trips. The read is
//! serializable, answered by one node without asking the others; a stale answer costs one more
//! transaction, which is linearizable and brings the next candidate along when it fails.
//!
//! The messages are the few fields of etcd's `rpc.proto` and `kv.proto` that are used here.

use anyhow::{Context, Result, ensure};
use prost::Message;
use tonic::{
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use crate::pool::{self, Key};

/// Connections; a few, as one takes a lock per message.
const CONNECTIONS: usize = 4;
/// Operations in one transaction of the load; the servers are started with this limit.
pub(crate) const TXN_OPS_MAX: usize = 1_000;

const RANGE: PathAndQuery = PathAndQuery::from_static("/etcdserverpb.KV/Range");
const TXN: PathAndQuery = PathAndQuery::from_static("/etcdserverpb.KV/Txn");
const STATUS: PathAndQuery = PathAndQuery::from_static("/etcdserverpb.Maintenance/Status");

/// Connections to the node that was preferred.
pub(crate) struct Etcd {
    channel: Channel,
}

impl Etcd {
    /// Connects to the first of `ports`, which should be the leader's: a follower would only pass
    /// the transaction on.
    pub(crate) async fn connect(ports: &[u16]) -> Result<Self> {
        let port = *ports.first().context("no port")?;
        let endpoints = std::iter::repeat_n(endpoint(port)?, CONNECTIONS).enumerate();
        let (channel, changes) = Channel::balance_channel(CONNECTIONS);
        for (number, endpoint) in endpoints {
            changes.send(tonic::transport::channel::Change::Insert(number, endpoint)).await?;
        }
        Ok(Self { channel })
    }

    /// Pops the key with the lowest id.
    pub(crate) async fn pop(&self, user: u32) -> Result<Option<Key>> {
        let first = first_of(user);
        let found: RangeResponse =
            call(&self.channel, RANGE, RangeRequest { serializable: true, ..first.clone() })
                .await?;
        let mut candidates = found.kvs;
        while let Some(candidate) = candidates.pop() {
            let answer: TxnResponse =
                call(&self.channel, TXN, delete_or_read(candidate.key, first.clone())).await?;
            let operation = answer.responses.into_iter().next().and_then(|op| op.response);
            candidates = match operation.context("a transaction without answer")? {
                Response::DeleteRange(mut deleted) => {
                    let taken = deleted.prev_kvs.pop().context("deleted, but not returned")?;
                    return pool::key(taken.value).map(Some);
                }
                Response::Range(found) => found.kvs,
            };
        }
        Ok(None)
    }

    /// Fills the pools.
    pub(crate) async fn load(port: u16, users: u32) -> Result<()> {
        let channel = endpoint(port)?.connect().await?;
        let mut puts = Vec::with_capacity(TXN_OPS_MAX);
        for user in 0..users {
            for id in pool::ids(user) {
                let put = PutRequest { key: key_of(user, id), value: pool::value(id).to_vec() };
                puts.push(RequestOp { request: Some(Request::Put(put)) });
            }
            if puts.len() + pool::ids(user).count() > TXN_OPS_MAX || user + 1 == users {
                let txn = TxnRequest { success: std::mem::take(&mut puts), ..Default::default() };
                let answer: Succeeded = call(&channel, TXN, txn).await?;
                ensure!(answer.succeeded, "etcd did not take the keys");
            }
        }
        Ok(())
    }

    /// Whether the node at `port` leads; an error if it does not answer or knows no leader.
    pub(crate) async fn leads(port: u16) -> Result<bool> {
        let channel = endpoint(port)?.connect().await?;
        let status: StatusResponse = call(&channel, STATUS, StatusRequest {}).await?;
        ensure!(status.leader != 0, "no leader");
        Ok(status.header.is_some_and(|header| header.member_id == status.leader))
    }
}

fn endpoint(port: u16) -> Result<Endpoint> {
    Ok(Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?.tcp_nodelay(true))
}

async fn call<Q, A>(channel: &Channel, path: PathAndQuery, question: Q) -> Result<A>
where
    Q: Message + Send + Sync + 'static,
    A: Message + Default + Send + Sync + 'static,
{
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await?;
    let codec = ProstCodec::<Q, A>::default();
    Ok(grpc.unary(tonic::Request::new(question), path, codec).await?.into_inner())
}

fn key_of(user: u32, id: u64) -> Vec<u8> {
    [&b"opk/"[..], &user.to_be_bytes(), b"/", &id.to_be_bytes()].concat()
}

fn first_of(user: u32) -> RangeRequest {
    let pool = |end: &[u8]| [&b"opk/"[..], &user.to_be_bytes(), end].concat();
    // `0` comes after `/`.
    RangeRequest { key: pool(b"/"), range_end: pool(b"0"), limit: 1, serializable: false }
}

fn delete_or_read(key: Vec<u8>, first: RangeRequest) -> TxnRequest {
    TxnRequest {
        compare: vec![Compare {
            result: GREATER,
            target: CREATE,
            key: key.clone(),
            create_revision: Some(0),
        }],
        success: vec![RequestOp {
            request: Some(Request::DeleteRange(DeleteRangeRequest { key, prev_kv: true })),
        }],
        failure: vec![RequestOp { request: Some(Request::Range(first)) }],
    }
}

const GREATER: i32 = 1;
const CREATE: i32 = 1;

#[derive(Clone, PartialEq, Message)]
struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    range_end: Vec<u8>,
    #[prost(int64, tag = "3")]
    limit: i64,
    #[prost(bool, tag = "7")]
    serializable: bool,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "5")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct RangeResponse {
    #[prost(message, repeated, tag = "2")]
    kvs: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct DeleteRangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bool, tag = "3")]
    prev_kv: bool,
}

#[derive(Clone, PartialEq, Message)]
struct DeleteRangeResponse {
    #[prost(message, repeated, tag = "3")]
    prev_kvs: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct Compare {
    #[prost(int32, tag = "1")]
    result: i32,
    #[prost(int32, tag = "2")]
    target: i32,
    #[prost(bytes = "vec", tag = "3")]
    key: Vec<u8>,
    #[prost(int64, optional, tag = "5")]
    create_revision: Option<i64>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Request {
    #[prost(message, tag = "1")]
    Range(RangeRequest),
    #[prost(message, tag = "2")]
    Put(PutRequest),
    #[prost(message, tag = "3")]
    DeleteRange(DeleteRangeRequest),
}

#[derive(Clone, PartialEq, Message)]
struct RequestOp {
    #[prost(oneof = "Request", tags = "1, 2, 3")]
    request: Option<Request>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Response {
    #[prost(message, tag = "1")]
    Range(RangeResponse),
    #[prost(message, tag = "3")]
    DeleteRange(DeleteRangeResponse),
}

#[derive(Clone, PartialEq, Message)]
struct ResponseOp {
    #[prost(oneof = "Response", tags = "1, 3")]
    response: Option<Response>,
}

#[derive(Clone, PartialEq, Message)]
struct TxnRequest {
    #[prost(message, repeated, tag = "1")]
    compare: Vec<Compare>,
    #[prost(message, repeated, tag = "2")]
    success: Vec<RequestOp>,
    #[prost(message, repeated, tag = "3")]
    failure: Vec<RequestOp>,
}

#[derive(Clone, PartialEq, Message)]
struct TxnResponse {
    #[prost(message, repeated, tag = "3")]
    responses: Vec<ResponseOp>,
}

/// A transaction's answer without the answers of its operations.
#[derive(Clone, PartialEq, Message)]
struct Succeeded {
    #[prost(bool, tag = "2")]
    succeeded: bool,
}

#[derive(Clone, PartialEq, Message)]
struct StatusRequest {}

#[derive(Clone, PartialEq, Message)]
struct Header {
    #[prost(uint64, tag = "2")]
    member_id: u64,
}

#[derive(Clone, PartialEq, Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
    #[prost(uint64, tag = "4")]
    leader: u64,
}
