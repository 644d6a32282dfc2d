//! Waiting for records to change on a node that has no replica of them.
//!
//! Guarantees: as soon as a read at the shard's leader gives another answer than the one that is
//! known, whoever waits for that is woken, whenever the change came. A node holds a bounded number of
//! such waits open for others, each for a bounded time.
//!
//! Leaves out: leaders that cannot be reached, or run a program that does not know of this yet. Whoever
//! waits reads now and then besides.

use std::{future::pending, time::Duration};

use oncekey_store::query::{Answer, Query};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    error::Fault,
    peer::{Protocols, Request, Response, ShardRequest},
    router::{LocalRead, Router},
    shard::Shard,
};

/// The first version of the peer protocol that knows [`ShardRequest::Await`].
const FIRST_PROTOCOL: u32 = 4;
/// Waits that a node holds open for others.
const HELD_MAX: usize = 16 * 1024;
/// How long it holds one open.
const HELD_FOR: Duration = Duration::from_secs(15);
/// What the way there and back may take.
const GRACE: Duration = Duration::from_secs(5);
/// Pause between two reads for a user who is busy.
const GATHER: Duration = Duration::from_millis(100);
/// Pause before a leader is asked again that gave no answer.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The waits that a node holds open for others.
pub(crate) struct Held(Semaphore);

impl Default for Held {
    fn default() -> Self {
        Self(Semaphore::new(HELD_MAX))
    }
}

/// Reads this node's replica once that gives another answer than `known`, or after a while; none when
/// it holds no replica, or too many wait.
pub(crate) async fn hold(
    router: &Router,
    shard: &Shard,
    query: &Query,
    known: &Answer,
) -> Result<Option<LocalRead>, Fault> {
    let Ok(_place) = router.held.0.try_acquire() else { return Ok(None) };
    let until = Instant::now() + HELD_FOR;
    let mut watch = shard.watchers.watch(query.user());
    loop {
        let read = router.query_replica(shard, query)?;
        if read.as_ref().is_none_or(|read| read.answer != *known) || Instant::now() >= until {
            return Ok(read);
        }
        tokio::select! {
            () = watch.changed() => sleep(GATHER).await,
            () = sleep_until(until) => {}
        }
    }
}

/// Waits until the leader of the query's shard, another node, gives another answer than `known`. Never
/// ends on a node that has a replica.
pub(crate) async fn changed(router: &Router, query: &Query, known: &Answer) {
    let shard = router.shard_of(query.user());
    loop {
        if router.hosts(shard) {
            pending::<()>().await;
        }
        match ask(router, shard, query, known).await {
            Some(answer) if answer != *known => return,
            Some(_) => {}
            None => sleep(RETRY_PAUSE).await,
        }
    }
}

async fn ask(router: &Router, shard: &Shard, query: &Query, known: &Answer) -> Option<Answer> {
    let leader = router.leader_of(shard)?;
    let Protocols { newest, .. } =
        router.membership.state().nodes.get(&leader)?.told.as_ref()?.protocols;
    if newest < FIRST_PROTOCOL {
        return None;
    }
    let request = ShardRequest::Await { query: query.clone(), known: known.clone() };
    let request = Request::Shard(shard.id().0, request);
    match router.pool.call(leader, request, HELD_FOR + GRACE).await {
        Ok(Response::Peeked { answer, .. }) => Some(answer),
        Ok(_) | Err(_) => None,
    }
}
