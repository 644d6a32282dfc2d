//! The membership: who belongs to the cluster, and which nodes hold which shard.
//!
//! A Raft group of its own, of which every node of the cluster holds a replica: up to five vote, the
//! others learn. So a node reads what it needs from itself, and what was decided survives whoever
//! decided it. Its leader is the [steward](steward), who carries decisions out.
//!
//! Guarantees: a change is decided by a quorum before anything is done about it; each step of it may
//! be done again, so a steward that is lost in the middle is followed by one that goes on. Nothing
//! of a shard's promise rests on it: a shard's voters change by a joint quorum of that shard.
//!
//! Leaves out: what the members do with their shards. A cluster whose membership group has no quorum
//! serves as before and only cannot change.

mod codec;
mod form;
mod plan;
mod state;
pub(crate) mod steward;

use std::{sync::Arc, time::Duration};

use oncekey_types::{ShardId, limits};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use crate::{
    error::ChangeError,
    group::Group,
    liveness::Liveness,
    peer::{PeerPool, Request, Response},
    type_config::{Proposal, Reply},
};

pub(crate) use codec::{KEY, decode_command, decode_state, encode_state};
pub(crate) use form::{announce, follow, form};
pub(crate) use state::{Command, Node, Placement, State, Told, Verdict, apply};
pub use state::{Location, Refusal, Standing};

/// The number of the membership's group, beside those of the shards. Stable.
pub(crate) const GROUP: ShardId = ShardId(u16::MAX - 1);

const _: () = assert!(limits::SHARDS_MAX < GROUP.0, "the number of the membership is taken");

/// Pause before the leader is asked again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// What is published of the state whenever it changes.
pub(crate) type Published = watch::Sender<Arc<State>>;

/// The membership on this node.
pub(crate) struct Membership {
    me: u64,
    pub(crate) group: Arc<Group>,
    state: watch::Receiver<Arc<State>>,
    pool: Arc<PeerPool>,
    liveness: Arc<Liveness>,
}

impl Membership {
    pub(crate) fn new(
        me: u64,
        group: Arc<Group>,
        state: watch::Receiver<Arc<State>>,
        pool: Arc<PeerPool>,
        liveness: Arc<Liveness>,
    ) -> Self {
        Self { me, group, state, pool, liveness }
    }

    /// The state as this replica has it.
    pub(crate) fn state(&self) -> Arc<State> {
        Arc::clone(&self.state.borrow())
    }

    /// Sees every change from now on; also the state as it is.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<State>> {
        let mut state = self.state.clone();
        state.mark_changed();
        state
    }

    /// Has the leader, wherever it is, decide on `command`. Tries until `deadline`.
    pub(crate) async fn propose(
        &self,
        command: &Command,
        deadline: Instant,
    ) -> Result<(), ChangeError> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let decided = match self.leader() {
                Some(leader) if leader == self.me => {
                    timeout(left, self.decide(command)).await.unwrap_or_default()
                }
                Some(leader) => {
                    let request = Request::Membership(command.clone());
                    match self.pool.call(leader, request, left).await {
                        Ok(Response::Decided(verdict)) => Some(verdict),
                        Ok(_) | Err(_) => None,
                    }
                }
                None => None,
            };
            if let Some(verdict) = decided {
                return verdict.map_err(ChangeError::Refused);
            }
            if Instant::now() + RETRY_PAUSE >= deadline {
                return Err(ChangeError::Undecided);
            }
            sleep(RETRY_PAUSE).await;
        }
    }

    /// The verdict on `command`, if this node leads the group; none when that is not known.
    pub(crate) async fn decide(&self, command: &Command) -> Option<Verdict> {
        let proposal = match codec::encode_command(command) {
            Ok(bytes) => Proposal(bytes),
            Err(error) => {
                tracing::error!(%error, "a change of the membership cannot be encoded");
                return None;
            }
        };
        // A leader that was idle must hear from a quorum before it takes a write.
        self.group.confirm_lead().await.ok()?;
        match self.group.raft.client_write(proposal).await.ok()?.data {
            Reply::Decided(verdict) => Some(verdict),
            Reply::Outcomes(_) => None,
        }
    }

    /// Whether this node leads the group, as far as it knows.
    pub(crate) fn leads(&self) -> bool {
        self.group.leader() == Some(self.me)
    }

    fn leader(&self) -> Option<u64> {
        let is_heard = |leader: &u64| *leader == self.me || self.liveness.leads(*leader, GROUP);
        self.group.leader().filter(is_heard).or_else(|| self.liveness.leader_of(GROUP))
    }
}
