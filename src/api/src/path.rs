//! Paths: the routes a server mounts and the functions a client calls.
//!
//! Guarantees: a path made here leads to the route of the same name and carries the user
//! unchanged, whatever its characters. Leaves out: a user named `.` or `..` travels as `%2E`, and
//! a proxy that resolves dot segments will lose it.

use oncekey_types::{BackupId, DeviceId, Epoch, Seq, ShardId, UserId};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// `GET`: a user's devices and device list.
pub const USER: &str = "/v1/users/{user}";
/// `PUT`: register a device. `DELETE`: remove it.
pub const DEVICE: &str = "/v1/users/{user}/devices/{device}";
/// `PUT`: replace the signed prekey.
pub const SIGNED_PREKEY: &str = "/v1/users/{user}/devices/{device}/signed-prekey";
/// `POST`: add one-time prekeys.
pub const ONE_TIME_PREKEYS: &str = "/v1/users/{user}/devices/{device}/one-time-prekeys";
/// `GET`: what the server holds of a device's keys.
pub const PREKEYS: &str = "/v1/users/{user}/devices/{device}/prekeys";
/// `PUT`: the next signed device list.
pub const DEVICE_LIST: &str = "/v1/users/{user}/device-list";
/// `POST`: fetch the bundles of one user.
pub const USER_BUNDLES: &str = "/v1/users/{user}/bundles";
/// `POST`: fetch the bundles of several users.
pub const BUNDLES: &str = "/v1/bundles";
/// `GET`: what there is for a device to look at, as it happens; [`events`] names the device.
pub const EVENTS: &str = "/v1/events";
/// `POST`: why handshakes failed, in numbers.
pub const REPORTS: &str = "/v1/reports";

/// `GET`, admin: the process runs.
pub const LIVEZ: &str = "/livez";
/// `GET`, admin: the node can serve.
pub const READYZ: &str = "/readyz";
/// `GET`, admin: Prometheus metrics.
pub const METRICS: &str = "/metrics";
/// `GET`, admin: this interface, described (OpenAPI 3.1).
pub const OPENAPI: &str = "/openapi.json";
/// `GET`, admin: members, shards, leaders.
pub const CLUSTER: &str = "/v1/cluster";
/// `GET`, admin: a page for people that shows what [`CLUSTER`] tells.
pub const STATUS_PAGE: &str = "/";
/// `POST`, admin: put a new node in the place of a lost one.
pub const CLUSTER_REPLACE: &str = "/v1/cluster/replace";
/// `POST`, admin: form a cluster of fresh nodes.
pub const CLUSTER_INIT: &str = "/v1/cluster/init";
/// `POST`, admin: let a node that has asked to join hold replicas.
pub const CLUSTER_JOIN: &str = "/v1/cluster/join";
/// `POST`, admin: move everything away from a node, then remove it.
pub const CLUSTER_DRAIN: &str = "/v1/cluster/drain";
/// `POST`, admin: give the lead of a shard to another node.
pub const CLUSTER_TRANSFER: &str = "/v1/cluster/transfer";

/// `GET`, admin: what there is to be backed up.
pub const BACKUP: &str = "/v1/cluster/backup";
/// `GET`, admin: one shard's backup.
pub const SHARD_BACKUP: &str = "/v1/cluster/backup/{shard}";
/// `POST`, admin: begin to fill a new cluster from a backup.
pub const RESTORE: &str = "/v1/cluster/restore";
/// `POST`, admin: a chunk of a shard's backup.
pub const RESTORE_RECORDS: &str = "/v1/cluster/restore/{backup}/{epoch}/records";
/// `POST`, admin: that was all.
pub const RESTORE_END: &str = "/v1/cluster/restore/{backup}/{epoch}/end";

/// `GET`, admin, in a build with failpoints only: the names of the points at which a node can be
/// told to die.
pub const FAILPOINTS: &str = "/failpoints";
/// `PUT`, admin, in a build with failpoints only: die the given time that this point is reached.
/// `DELETE`: do not.
pub const FAILPOINT: &str = "/failpoints/{name}";

/// Unreserved characters (RFC 3986) except the dot, which alone could be a dot segment.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'~');

/// Path of [`USER`].
#[must_use]
pub fn user(user: &UserId) -> String {
    format!("/v1/users/{}", utf8_percent_encode(user.as_str(), SEGMENT))
}

/// Path of [`DEVICE`].
#[must_use]
pub fn device(user: &UserId, device: DeviceId) -> String {
    format!("{}/devices/{device}", self::user(user))
}

/// Path and query of a removal by the device itself, whose write number is `seq`.
#[must_use]
pub fn remove_device(user: &UserId, device: DeviceId, seq: Seq) -> String {
    format!("{}?seq={seq}", self::device(user, device))
}

/// Path of [`SIGNED_PREKEY`].
#[must_use]
pub fn signed_prekey(user: &UserId, device: DeviceId) -> String {
    format!("{}/signed-prekey", self::device(user, device))
}

/// Path of [`ONE_TIME_PREKEYS`].
#[must_use]
pub fn one_time_prekeys(user: &UserId, device: DeviceId) -> String {
    format!("{}/one-time-prekeys", self::device(user, device))
}

/// Path of [`PREKEYS`].
#[must_use]
pub fn prekeys(user: &UserId, device: DeviceId) -> String {
    format!("{}/prekeys", self::device(user, device))
}

/// Path of [`DEVICE_LIST`].
#[must_use]
pub fn device_list(user: &UserId) -> String {
    format!("{}/device-list", self::user(user))
}

/// Path of [`USER_BUNDLES`].
#[must_use]
pub fn user_bundles(user: &UserId) -> String {
    format!("{}/bundles", self::user(user))
}

/// Path of [`SHARD_BACKUP`].
#[must_use]
pub fn shard_backup(shard: ShardId) -> String {
    format!("{BACKUP}/{shard}")
}

/// Path of [`RESTORE_RECORDS`].
#[must_use]
pub fn restore_records(backup: BackupId, epoch: Epoch) -> String {
    format!("{RESTORE}/{backup}/{epoch}/records")
}

/// Path of [`RESTORE_END`].
#[must_use]
pub fn restore_end(backup: BackupId, epoch: Epoch) -> String {
    format!("{RESTORE}/{backup}/{epoch}/end")
}

/// Path and query of [`EVENTS`].
#[must_use]
pub fn events(user: &UserId, device: DeviceId) -> String {
    format!("{EVENTS}?user={}&device={device}", utf8_percent_encode(user.as_str(), SEGMENT))
}

/// A device's name in the signatures of its requests: `user/device`, the user percent-encoded as in
/// paths.
#[must_use]
pub fn key_id(user: &UserId, device: DeviceId) -> String {
    format!("{}/{device}", utf8_percent_encode(user.as_str(), SEGMENT))
}

/// The device that a [`key_id`] names.
#[must_use]
pub fn device_of_key_id(text: &str) -> Option<(UserId, DeviceId)> {
    let (user, device) = text.split_once('/')?;
    let user = UserId::new(percent_decode_str(user).decode_utf8().ok()?).ok()?;
    let device = device.parse().ok()?;
    // A device has one name.
    (key_id(&user, device) == text).then_some((user, device))
}

/// The device that the query of [`events`] names.
#[must_use]
pub fn device_of_events(query: &str) -> Option<(UserId, DeviceId)> {
    let (user, number) = query.strip_prefix("user=")?.split_once("&device=")?;
    let user = percent_decode_str(user).decode_utf8().ok()?;
    let device: DeviceId = number.parse().ok()?;
    // A number has one spelling.
    (device.to_string() == number).then_some((UserId::new(user).ok()?, device))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_user_is_one_segment_and_comes_back(name in "\\PC{1,60}") {
            let id = UserId::new(name.clone()).unwrap();
            let path = user(&id);
            let segment = path.strip_prefix("/v1/users/").unwrap();
            prop_assert!(!segment.contains(['/', '?', '#', '.']), "{}", path);
            prop_assert_eq!(percent_decode_str(segment).decode_utf8().unwrap(), name);
            let target = events(&id, DeviceId(7));
            let query = target.strip_prefix("/v1/events?").unwrap();
            prop_assert_eq!(device_of_events(query), Some((id.clone(), DeviceId(7))));
            let name = key_id(&id, DeviceId(7));
            prop_assert!(name.bytes().all(|byte| byte.is_ascii_graphic()), "{}", name);
            prop_assert_eq!(device_of_key_id(&name), Some((id, DeviceId(7))));
        }
    }

    #[test]
    fn the_query_of_events_names_one_device_in_one_way() {
        assert!(device_of_events("user=bob&device=1").is_some());
        for query in [
            "",
            "user=bob",
            "device=1&user=bob",
            "user=bob&device=",
            "user=bob&device=01",
            "user=bob&device=-1",
            "user=bob&device=1&x=1",
            "user=&device=1",
            "user=%ff&device=1",
        ] {
            assert_eq!(device_of_events(query), None, "{query}");
        }
    }

    #[test]
    fn a_path_follows_its_route() {
        let bob = UserId::new("bob").unwrap();
        let one = DeviceId(1);
        for (route, path) in [
            (USER, user(&bob)),
            (DEVICE, device(&bob, one)),
            (SIGNED_PREKEY, signed_prekey(&bob, one)),
            (ONE_TIME_PREKEYS, one_time_prekeys(&bob, one)),
            (PREKEYS, prekeys(&bob, one)),
            (DEVICE_LIST, device_list(&bob)),
            (USER_BUNDLES, user_bundles(&bob)),
        ] {
            assert_eq!(path, route.replace("{user}", "bob").replace("{device}", "1"));
        }
        let (backup, epoch) = (BackupId([0; 16]), Epoch(7));
        let id = backup.to_string();
        assert_eq!(shard_backup(ShardId(3)), SHARD_BACKUP.replace("{shard}", "3"));
        for (route, path) in [
            (RESTORE_RECORDS, restore_records(backup, epoch)),
            (RESTORE_END, restore_end(backup, epoch)),
        ] {
            assert_eq!(path, route.replace("{backup}", &id).replace("{epoch}", "7"));
        }
        assert_eq!(remove_device(&bob, one, Seq(7)), "/v1/users/bob/devices/1?seq=7");
    }
}
