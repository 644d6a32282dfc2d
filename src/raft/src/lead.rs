//! Whether a leader still leads, asked anew.
//!
//! Guarantees: when the answer is yes, a quorum of the voters followed this leader after the question
//! was put, so nobody else had been elected by then. openraft has a round of its own for reads, but
//! takes an answer to an earlier request for one to a later request that carries no entries: a leader
//! that wakes up after a pause can confirm itself with answers from before it. Here only answers to
//! the question count.
//!
//! Leaves out: how far the state must be before it is read, which openraft sees to.

use std::{collections::BTreeSet, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use oncekey_planted::{self as planted, Bug};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};

use crate::{
    group::Group,
    peer::{GroupRequest, PeerPool, Request, Response, ShardRequest},
    type_config::Vote,
};

/// Time for a quorum to answer.
const LIMIT: Duration = Duration::from_secs(1);

/// Whether a quorum of the voters of `group` follows this node. False also when it does not say so in
/// time.
pub(crate) async fn is_followed(group: &Group, pool: &PeerPool) -> bool {
    let known = group.raft.with_raft_state(|state| {
        let voters = state.membership_state.effective().membership().get_joint_config().clone();
        (*state.vote_ref(), voters)
    });
    let Ok((vote, quorums)) = known.await else { return false };
    let me = vote.leader_id.node_id;
    if !vote.is_committed() || me != group.metrics().id {
        return false;
    }
    if planted::is(Bug::OldAcknowledgement) {
        return true;
    }
    let mut followers = BTreeSet::from([me]);
    let voters: BTreeSet<u64> = quorums.iter().flatten().copied().collect();
    let others = voters.into_iter().filter(|voter| *voter != me);
    let mut answers: FuturesUnordered<_> = others
        .map(|voter| async move { (voter, follows(group, pool, voter, vote).await) })
        .collect();
    while !is_quorum(&followers, &quorums) {
        match answers.next().await {
            Some((voter, true)) => drop(followers.insert(voter)),
            Some((_, false)) => {}
            None => return false,
        }
    }
    true
}

/// Whether `voter` follows the leader of `vote`, asked by an append of nothing.
async fn follows(group: &Group, pool: &PeerPool, voter: u64, vote: Vote) -> bool {
    let nothing =
        AppendEntriesRequest { vote, prev_log_id: None, entries: Vec::new(), leader_commit: None };
    let request = ShardRequest::Group(GroupRequest::Append(nothing));
    let answer = pool.call(voter, Request::Shard(group.id.0, request), LIMIT).await;
    matches!(answer, Ok(Response::Append(AppendEntriesResponse::Success)))
}

/// Whether `nodes` are more than half of each of `quorums`: one set, or two while it changes.
fn is_quorum(nodes: &BTreeSet<u64>, quorums: &[BTreeSet<u64>]) -> bool {
    quorums.iter().all(|voters| 2 * voters.intersection(nodes).count() > voters.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quorum_is_more_than_half_before_and_after_a_change() {
        let set = |nodes: &[u64]| nodes.iter().copied().collect::<BTreeSet<_>>();
        assert!(is_quorum(&set(&[1]), &[set(&[1])]));
        assert!(!is_quorum(&set(&[1]), &[set(&[1, 2])]));
        assert!(is_quorum(&set(&[1, 3]), &[set(&[1, 2, 3])]));
        assert!(!is_quorum(&set(&[1, 4]), &[set(&[1, 2, 3])]));
        let change = [set(&[1, 2, 3]), set(&[3, 4, 5])];
        assert!(!is_quorum(&set(&[1, 2]), &change));
        assert!(!is_quorum(&set(&[3, 4]), &change));
        assert!(is_quorum(&set(&[1, 3, 4]), &change));
    }
}
