//! How a node that starts makes itself known.
//!
//! Guarantees: a node greets every other node that it knows of, or is told of, once after its
//! start. So a node that lost its disk finds out at once that it must not go on, and one that joins
//! is met by all before it is made a member. Leaves out: an end while a member stays away; it is
//! greeted in vain, once a second, until it is back or removed from the cluster.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval};

use crate::peer::{PeerPool, Request, Response};

const EVERY: Duration = Duration::from_secs(1);
const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// Greets the nodes at `addresses` and all that `pool` knows or that they know. Returns when every
/// one of them has been met.
pub(crate) async fn introduce(pool: Arc<PeerPool>, addresses: Vec<String>) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut strangers: BTreeSet<String> = addresses.into_iter().collect();
    let mut met = BTreeSet::new();
    loop {
        ticks.tick().await;
        for address in strangers.clone() {
            match pool.introduce(&address).await {
                // It tells of all others.
                Ok(_) => strangers.clear(),
                Err(error) => tracing::info!(address, %error, "cannot join through this node yet"),
            }
        }
        let others: Vec<u64> = pool.others().into_keys().collect();
        for node in others.iter().filter(|node| !met.contains(*node)).copied().collect::<Vec<_>>() {
            let known = pool.call(node, Request::Acquaintances, CALL_TIMEOUT).await;
            if let Ok(Response::Acquaintances { members, .. }) = known {
                met.insert(node);
                for (node, member) in members {
                    pool.learn_if_unknown(node, &member);
                }
            }
        }
        if strangers.is_empty() && pool.others().keys().all(|node| met.contains(node)) {
            return;
        }
    }
}
