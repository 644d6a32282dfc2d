//! What an operator asks of a node: to form a cluster, and to change it.
//!
//! Guarantees: a change that was decided goes on whoever asked for it; asking again waits for it.
//! Leaves out: carrying it out, see `membership`.

use oncekey_types::{NodeId, ShardId};
use tokio::time::{Instant, timeout_at};

use crate::{
    config::Member,
    error::ChangeError,
    members::{self, Change},
    membership::{Command, State},
    node::Node,
};

impl Node {
    /// Forms a new cluster of this node and those at the peer addresses `peers`, all of them fresh.
    /// Returns when all have agreed; the shards form beside.
    ///
    /// # Errors
    ///
    /// [`ChangeError::NotFresh`] with the first reason against it.
    pub async fn found_cluster(
        &self,
        peers: &[String],
        replicas: Option<u16>,
    ) -> Result<(), ChangeError> {
        self.inner.foundation.lay(self.inner.me.clone(), peers, replicas).await
    }

    /// Lets `node` hold replicas: one that has asked to join, or one that is draining after all.
    ///
    /// # Errors
    ///
    /// See [`ChangeError`].
    pub async fn activate(&self, node: NodeId, deadline: Instant) -> Result<(), ChangeError> {
        self.propose(&Command::Activate { node: node.0 }, deadline).await
    }

    /// Has everything moved away from `node`, and `node` removed then. Returns when it is decided.
    ///
    /// # Errors
    ///
    /// See [`ChangeError`].
    pub async fn drain_node(&self, node: NodeId, deadline: Instant) -> Result<(), ChangeError> {
        self.propose(&Command::Drain { node: node.0 }, deadline).await
    }

    /// Puts the node `new` in the place of `old`, in all shards, and waits until `old` is removed.
    /// Safe to ask again.
    ///
    /// # Errors
    ///
    /// See [`ChangeError`].
    pub async fn replace_member(
        &self,
        old: NodeId,
        new: NodeId,
        member: Member,
        deadline: Instant,
    ) -> Result<(), ChangeError> {
        self.propose(&Command::Replace { old: old.0, new: new.0, member }, deadline).await?;
        let mut states = self.inner.router.membership.watch();
        let is_done = |state: &State| state.removed.contains(&old.0);
        let removed = async { states.wait_for(|state| is_done(state)).await.map(drop) };
        if let Ok(Ok(())) = timeout_at(deadline, removed).await {
            return Ok(());
        }
        let state = self.inner.router.membership.state();
        let held = state.shards.values().filter(|placement| placement.names(old.0)).count();
        Err(ChangeError::Unfinished { what: format!("node {old} still holds {held} shards") })
    }

    /// Gives the lead of `shard` to `to`, one of its voters.
    ///
    /// # Errors
    ///
    /// See [`ChangeError`].
    pub async fn transfer_leader(
        &self,
        shard: ShardId,
        to: NodeId,
        deadline: Instant,
    ) -> Result<(), ChangeError> {
        let router = &self.inner.router;
        let shard = router.shards.get(&shard).ok_or(ChangeError::UnknownShard)?;
        let leader = || router.leader_of(shard);
        let change = Change::HandOver { to: to.0 };
        members::change(router.me, &shard.group, &router.pool, leader, &change, deadline).await
    }

    async fn propose(&self, command: &Command, deadline: Instant) -> Result<(), ChangeError> {
        self.inner.router.membership.propose(command, deadline).await
    }
}
