//! Who waits for a user's records to change on this node.
//!
//! Guarantees: every entry that is applied here and names the user wakes its watchers, and so does
//! a snapshot that takes the place of the shard's state. A change while nobody waits is not lost;
//! several may be one. While nobody watches, applying costs one look at a number.
//!
//! Leaves out: what has changed, if anything. Whoever is woken reads.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use oncekey_types::UserId;
use parking_lot::Mutex;
use tokio::sync::watch;

/// The watchers of one shard. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Watchers(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// Users that are watched; the length of `users`.
    watched: AtomicUsize,
    users: Mutex<BTreeMap<UserId, watch::Sender<()>>>,
}

impl Watchers {
    /// Watches `user` from now on.
    pub(crate) fn watch(&self, user: &UserId) -> Watch {
        let mut users = self.0.users.lock();
        let changes = users.entry(user.clone()).or_insert_with(|| watch::channel(()).0).subscribe();
        self.0.watched.store(users.len(), Ordering::Release);
        Watch { user: user.clone(), changes: Some(changes), watchers: self.clone() }
    }

    /// Wakes whoever watches one of `users`.
    pub(crate) fn wake<'a>(&self, users: impl Iterator<Item = &'a UserId>) {
        if self.0.watched.load(Ordering::Acquire) == 0 {
            return;
        }
        let watched = self.0.users.lock();
        for user in users {
            if let Some(changes) = watched.get(user) {
                changes.send_replace(());
            }
        }
    }

    /// Wakes everyone.
    pub(crate) fn wake_all(&self) {
        for changes in self.0.users.lock().values() {
            changes.send_replace(());
        }
    }
}

/// Watches the records of one user on this node, until it is dropped.
pub struct Watch {
    user: UserId,
    changes: Option<watch::Receiver<()>>,
    watchers: Watchers,
}

impl Watch {
    /// Waits until something may have changed since the last call, or since the watch began.
    pub async fn changed(&mut self) {
        let changed = match &mut self.changes {
            Some(changes) => changes.changed().await.is_ok(),
            None => false,
        };
        if !changed {
            // The sender lives as long as its watchers.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut users = self.watchers.0.users.lock();
        // Under the lock, so that of two watches that end at once one is the last.
        self.changes = None;
        if users.get(&self.user).is_some_and(|changes| changes.receiver_count() == 0) {
            users.remove(&self.user);
        }
        self.watchers.0.watched.store(users.len(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn user(name: &str) -> UserId {
        UserId::new(name).unwrap()
    }

    #[test]
    fn a_watcher_is_woken_for_its_own_user_and_for_everyone() {
        let watchers = Watchers::default();
        let (mut alice, mut bob) = (watchers.watch(&user("alice")), watchers.watch(&user("bob")));
        watchers.wake([user("bob"), user("carol"), user("bob")].iter());
        assert!(bob.changed().now_or_never().is_some());
        assert!(bob.changed().now_or_never().is_none(), "two changes are one");
        assert!(alice.changed().now_or_never().is_none());
        watchers.wake_all();
        assert!(alice.changed().now_or_never().is_some() && bob.changed().now_or_never().is_some());
    }

    #[test]
    fn nothing_is_left_of_watches_that_ended() {
        let watchers = Watchers::default();
        let (first, second) = (watchers.watch(&user("bob")), watchers.watch(&user("bob")));
        drop(first);
        assert_eq!(watchers.0.watched.load(Ordering::Acquire), 1);
        drop(second);
        assert_eq!(watchers.0.watched.load(Ordering::Acquire), 0);
        assert!(watchers.0.users.lock().is_empty());
        watchers.wake([user("bob")].iter());
    }
}
