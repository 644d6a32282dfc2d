//! openraft's network, over the connections to the peers.
//!
//! Guarantees: appends of a shard to a follower are pipelined, up to [`PIPELINE_MAX`] without an
//! answer, and their answers come back in order; an append that only tells how far the log is
//! committed waits a moment for the next entry and travels with it; a pre-vote asks the peer and is
//! not granted when the peer is silent. Leaves out: the time limits of votes, which openraft is
//! configured with.

use std::{future::Future, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt, stream};
use oncekey_planted::{self as planted, Bug};
use oncekey_types::ShardId;
use openraft::{
    OptionalSend, RaftNetworkFactory, RaftNetworkV2,
    base::{BoxFuture, BoxStream},
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::{Backoff, RPCOption},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
        TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
    },
};

use tokio::time::{Instant, timeout_at};

use super::{
    link::CallError,
    pool::{PeerPool, REDIAL},
    wire::{GroupRequest, Request, Response, ShardRequest},
};
use crate::{
    config::Member,
    transfer::ShardSnapshot,
    type_config::{LogId, SnapshotOf, TypeConfig, Vote},
};

/// Appends of one shard to one follower that may wait for their answers.
const PIPELINE_MAX: usize = 32;
/// Time that a follower may learn later than it could how far the log is committed, so that it
/// learns it with the next entry. Nobody waits for that: a reply needs the leader's state alone.
const COMMIT_HOLD: Duration = Duration::from_millis(10);
/// Time after which an append without an answer is given up. Longer than a slow sync of the
/// follower's log, so that a loaded disk is not taken for a lost node; a broken connection ends
/// the wait at once.
const APPEND_TIMEOUT: Duration = Duration::from_secs(5);
/// Time in which a follower must have fetched and installed a snapshot.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(600);

type RpcError = RPCError<TypeConfig>;

/// Makes the network of one shard's group.
pub(crate) struct NetworkFactory {
    pub(crate) shard: ShardId,
    pub(crate) pool: Arc<PeerPool>,
}

impl RaftNetworkFactory<TypeConfig> for NetworkFactory {
    type Network = Network;

    async fn new_client(&mut self, target: u64, node: &Member) -> Network {
        // What was told since may be newer than what the log says.
        self.pool.learn_if_unknown(target, node);
        Network { shard: self.shard.0, target, pool: Arc::clone(&self.pool) }
    }
}

/// One shard's way to one node.
pub(crate) struct Network {
    shard: u16,
    target: u64,
    pool: Arc<PeerPool>,
}

impl Network {
    async fn call(&self, request: GroupRequest, timeout: Duration) -> Result<Response, RpcError> {
        let request = Request::Shard(self.shard, ShardRequest::Group(request));
        self.pool.call(self.target, request, timeout).await.map_err(|error| rpc_error(&error))
    }
}

impl RaftNetworkV2<TypeConfig> for Network {
    type SnapshotData = ShardSnapshot;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RpcError> {
        match self.call(GroupRequest::Append(rpc), APPEND_TIMEOUT).await? {
            Response::Append(response) => Ok(response),
            other => Err(unexpected(other)),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Result<AppendResults<'s>, RpcError>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            let shard = self.shard;
            // Where openraft makes the next request it pauses after a failure; without that, a
            // leader would try a node that is down over and over, without end.
            let mut requests = Box::pin(hold_commits(input).fuse());
            let first = requests.next().await;
            let link = self.pool.link(self.target).await.map_err(|error| rpc_error(&error))?;
            let answers = stream::iter(first).chain(requests).map(move |(held, rpc)| {
                let link = Arc::clone(&link);
                let prev = rpc.prev_log_id;
                let last = rpc.entries.last().map(|entry| entry.log_id).or(prev);
                async move {
                    if planted::now_and_then(Bug::FalseQuorum, 7) {
                        return stream::iter(vec![Ok(Ok(last))]);
                    }
                    let request = ShardRequest::Group(GroupRequest::Append(rpc));
                    let request = Request::Shard(shard, request);
                    let answer = link.call(request, APPEND_TIMEOUT).await;
                    let result = match answer.map_err(|error| rpc_error(&error)) {
                        Ok(Response::Append(response)) => {
                            Ok(response.into_stream_result(prev, last))
                        }
                        Ok(other) => Err(unexpected(other)),
                        Err(error) => Err(error),
                    };
                    // A follower that took the later request would have taken the held ones.
                    let count = if matches!(result, Ok(Ok(_))) { held.len() } else { 0 };
                    let held = held.into_iter().take(count).map(|prev| Ok(Ok(prev)));
                    stream::iter(held.chain([result]).collect::<Vec<_>>())
                }
            });
            let answers = answers.buffered(PIPELINE_MAX).flatten();
            Ok(Box::pin(until_first_failure(answers)) as AppendResults<'s>)
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        match self.call(GroupRequest::Vote(rpc), option.hard_ttl()).await? {
            Response::Vote(response) => Ok(response),
            other => Err(unexpected(other)),
        }
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        match self.call(GroupRequest::PreVote(rpc), option.hard_ttl()).await? {
            Response::Vote(response) => Ok(response),
            other => Err(unexpected(other)),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        // The follower pulls the newest state itself; the one openraft holds is not needed.
        drop(snapshot);
        let install = self.call(GroupRequest::InstallSnapshot { vote }, INSTALL_TIMEOUT);
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            response = install => match response {
                Ok(Response::Installed(response)) => Ok(response),
                Ok(other) => Err(unexpected(other).into()),
                Err(error) => Err(error.into()),
            },
        }
    }

    /// As often as the node is dialled.
    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(REDIAL)))
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RpcError> {
        match self.call(GroupRequest::TransferLeader(rpc), option.hard_ttl()).await? {
            Response::TransferLeader(response) => Ok(response),
            other => Err(unexpected(other)),
        }
    }
}

type AppendResults<'s> = BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RpcError>>;

/// Joins a request that only tells how far the log is committed with the one that follows it, if
/// one does within [`COMMIT_HOLD`]. Yields requests, each with the last log ids before those that
/// it stands for.
fn hold_commits<S>(
    requests: S,
) -> impl Stream<Item = (Vec<Option<LogId>>, AppendEntriesRequest<TypeConfig>)>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Unpin,
{
    stream::unfold(requests.fuse(), |mut requests| async {
        let mut request = requests.next().await?;
        let mut held = Vec::new();
        let until = Instant::now() + COMMIT_HOLD;
        while request.entries.is_empty() {
            let Ok(Some(next)) = timeout_at(until, requests.next()).await else { break };
            held.push(request.prev_log_id);
            request = next;
        }
        Some(((held, request), requests))
    })
}

/// Ends the stream after its first failure or conflict: what was sent behind it does not count.
fn until_first_failure<S, T, C, E>(results: S) -> impl Stream<Item = Result<Result<T, C>, E>>
where
    S: Stream<Item = Result<Result<T, C>, E>>,
{
    stream::unfold(Some(Box::pin(results)), |results| async {
        let mut results = results?;
        let result = results.next().await?;
        let rest = matches!(result, Ok(Ok(_))).then_some(results);
        Some((result, rest))
    })
}

fn rpc_error(error: &CallError) -> RpcError {
    match error {
        CallError::Timeout | CallError::Encode(_) => RPCError::Network(NetworkError::new(error)),
        CallError::Unreachable(_) | CallError::Closed | CallError::Overloaded => {
            RPCError::Unreachable(Unreachable::new(error))
        }
    }
}

fn unexpected(response: Response) -> RpcError {
    let reason = match response {
        Response::Failed { reason } => reason,
        _ => "the peer answered another question".to_owned(),
    };
    RPCError::Unreachable(Unreachable::from_string(reason))
}
