//! A leader that stands still while another takes its place, and wakes up with answers from before.

use oncekey_types::LogIndex;

use super::{ways::linked, *};

const SLEEPER: NodeId = NodeId(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_wakes_up_is_not_confirmed_by_answers_from_before_its_sleep() {
    let (cluster, ways) = linked(&[SLEEPER]).await;
    let sleeper = &cluster.nodes[&SLEEPER];
    let deadline = Instant::now() + DEADLINE;
    submit(sleeper, register()).await;
    let id = sleeper.shard_of(&bob());
    if shard(sleeper, id).leader != Some(SLEEPER) {
        sleeper.transfer_leader(id, SLEEPER, deadline).await.unwrap();
    }
    cluster.wait("it leads", |node| shard(node, id).leader == Some(SLEEPER)).await;
    // Something of its own is committed.
    assert_eq!(issued(&submit(sleeper, dispense(1)).await), 1);

    // The others have an entry, and it does not hear so.
    let logged = shard(sleeper, id).last_log;
    let way = |from: NodeId, to: NodeId| ways[&from].to(&cluster.members[&to]);
    let others = [2, 3].map(NodeId);
    for other in others {
        way(SLEEPER, other).back.send_replace(false);
    }
    let asleep = async {
        cluster.wait("all have the entry", |node| shard(node, id).last_log > logged).await;
        for other in others {
            way(SLEEPER, other).there.send_replace(false);
            way(other, SLEEPER).there.send_replace(false);
            way(other, SLEEPER).back.send_replace(false);
        }
        cluster
            .wait("another leads", |node| {
                let leader = shard(node, id).leader;
                node.status().node == SLEEPER || leader.is_some_and(|leader| leader != SLEEPER)
            })
            .await;
        assert_eq!(issued(&submit(&cluster.nodes[&others[0]], dispense(3)).await), 3);
        // The question first, then the answers from before. By the first of them the entry is
        // committed, which the other one has yet to be told when its answer comes.
        tokio::join!(keys_left(sleeper, deadline), async {
            for other in others {
                way(SLEEPER, other).back.send_replace(true);
                cluster
                    .wait("it hears who has the entry", |node| {
                        let seen = shard(node, id);
                        let has = |matched: &LogIndex| *matched > logged;
                        let heard = seen.followers.get(&other).is_some_and(has);
                        node.status().node != SLEEPER || heard && seen.applied > logged
                    })
                    .await;
            }
            for other in others {
                way(SLEEPER, other).there.send_replace(true);
                way(other, SLEEPER).there.send_replace(true);
                way(other, SLEEPER).back.send_replace(true);
            }
        })
    };
    let (second, (left, ())) = tokio::join!(submit(sleeper, dispense(2)), asleep);
    assert_eq!(issued(&second), 2);
    assert_eq!(left, KEYS - 3, "three keys were handed out before it was asked");
}

/// What `node` says of the pool, which it is asked again while it finds no quorum.
async fn keys_left(node: &Node, deadline: Instant) -> u32 {
    let query = Query::Status { user: bob(), device: DeviceId(1) };
    loop {
        match node.query(&query, deadline).await.map(|read| read.answer) {
            Ok(Answer::Status(Some(status))) => return status.pool.count,
            Ok(answer) => panic!("no device: {answer:?}"),
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    }
}
