//! Fetching bundles.
//!
//! Guarantees: a fetch names itself with the header `Idempotency-Key`; the same fetch under the
//! same key gets the same one-time prekeys, for as long as the operator keeps answers.
//!
//! An answer with [`OneTimePreKeyStatus::Unavailable`] is the exception: no quorum was within
//! reach, so nothing was recorded, and *unknown is not failed*. The pop may have been committed
//! all the same, and a retry with the same key may return the key it issued.
//!
//! Leaves out: whether a bundle is genuine. The reader verifies its signatures.

use oncekey_types::{DeviceId, LogIndex, RegistrationId, Seq, ShardId, TimestampMs, UserId};
use serde::{Deserialize, Serialize};

use crate::{
    Problem,
    key::{IdentityKey, OneTimePreKey, SignedPreKey},
};

/// `POST` [`USER_BUNDLES`](crate::path::USER_BUNDLES).
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Fetch {
    /// Only these devices, ids growing; all of the user's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 32))]
    pub devices: Option<Vec<DeviceId>>,
    /// Answer with a problem, popping nothing, when any bundle would lack its one-time prekey.
    #[serde(default)]
    pub require_opk: bool,
}

/// Reply to [`Fetch`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Fetched {
    /// Whose bundles.
    pub user: UserId,
    /// Position of the user's device list in its chain; none when it has no account key.
    pub device_list_seq: Option<Seq>,
    /// One bundle for each device, in the order of the device ids.
    pub bundles: Vec<Bundle>,
    /// Whether this very answer was given before, to the same idempotency key.
    pub repeated: bool,
    /// Age of the data when no quorum was within reach: the time at which the answering node was
    /// last known to be current; 0 when it has not heard from a leader since it started.
    /// None in an answer that was committed.
    pub as_of: Option<TimestampMs>,
}

/// What a sender needs to write to one device.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Bundle {
    /// The device.
    pub device: DeviceId,
    /// Its registration; another one means that the device started anew.
    pub registration: RegistrationId,
    /// Its identity key.
    pub identity_key: IdentityKey,
    /// Its current signed prekey.
    pub signed_prekey: SignedPreKey,
    /// A one-time prekey that nobody else gets; there exactly when the status is
    /// [`Issued`](OneTimePreKeyStatus::Issued).
    pub one_time_prekey: Option<OneTimePreKey>,
    /// What became of the one-time prekey.
    pub one_time_prekey_status: OneTimePreKeyStatus,
}

/// Why a bundle has a one-time prekey or has none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum OneTimePreKeyStatus {
    /// There is one.
    Issued,
    /// The device's pool is empty.
    Exhausted,
    /// A limit of the caller or of the user is reached.
    Withheld,
    /// No quorum was within reach; nothing was recorded, see the [module](self).
    Unavailable,
}

/// `POST` [`BUNDLES`](crate::path::BUNDLES): each user is a fetch of its own, with its own commit
/// and its own outcome.
///
/// The idempotency key holds for each user apart: a user's fetch is known under
/// `base64url(SHA-256("oncekey multi-user fetch v1" ‖ u16be(len(key)) ‖ key ‖ user))`. A retry may
/// therefore name a part of the users only.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct FetchMany {
    /// 1 to [`USERS_PER_FETCH_MAX`](oncekey_types::limits::USERS_PER_FETCH_MAX) users, each once.
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 64))]
    pub users: Vec<UserFetch>,
    /// As in [`Fetch`], for each user apart.
    #[serde(default)]
    pub require_opk: bool,
}

/// One user of a [`FetchMany`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct UserFetch {
    /// The user.
    pub user: UserId,
    /// As in [`Fetch`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 32))]
    pub devices: Option<Vec<DeviceId>>,
}

/// Reply to [`FetchMany`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FetchedMany {
    /// One result for each user, in the order of the request.
    pub results: Vec<UserResult>,
}

/// What became of one user of a [`FetchMany`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UserResult {
    /// The user.
    pub user: UserId,
    /// Where the answer comes from; what the reply to a single fetch says in its headers.
    pub route: Route,
    /// The bundles or the problem.
    #[serde(flatten)]
    pub outcome: UserOutcome,
}

/// The bundles of a user, or why there are none.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum UserOutcome {
    /// As the reply to a single fetch.
    Fetched(Fetched),
    /// As the problem of a single fetch.
    Problem(Problem),
}

/// Where an answer comes from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Route {
    /// The user's shard.
    pub shard: ShardId,
    /// Public address of the node that leads it, when known.
    pub leader: Option<String>,
    /// Log index of the commit, when there was one.
    pub index: Option<LogIndex>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Code;

    fn bundle() -> serde_json::Value {
        json!({
            "device": 1,
            "registration": 7,
            "identity_key": {"kind": "ed25519", "key": "AQ"},
            "signed_prekey": {
                "id": 12, "key": "Ag", "created": 1_790_000_000_u64, "expires": 1_794_000_000_u64,
                "signature": "Aw",
            },
            "one_time_prekey": {"id": 341, "key": "BA", "signature": "BQ"},
            "one_time_prekey_status": "issued",
        })
    }

    #[test]
    fn a_bundle_has_the_documented_form() {
        let parsed: Bundle = serde_json::from_value(bundle()).unwrap();
        assert_eq!(parsed.one_time_prekey_status, OneTimePreKeyStatus::Issued);
        assert_eq!(serde_json::to_value(parsed).unwrap(), bundle());
    }

    #[test]
    fn a_missing_one_time_prekey_is_null() {
        let mut json = bundle();
        json["one_time_prekey"] = serde_json::Value::Null;
        for status in ["exhausted", "withheld", "unavailable"] {
            json["one_time_prekey_status"] = status.into();
            let parsed: Bundle = serde_json::from_value(json.clone()).unwrap();
            assert_eq!(serde_json::to_value(parsed).unwrap(), json);
        }
    }

    #[test]
    fn an_empty_object_fetches_all_devices() {
        assert_eq!(serde_json::from_str::<Fetch>("{}").unwrap(), Fetch::default());
        assert!(serde_json::from_str::<Fetch>(r#"{"require_otpk":true}"#).is_err());
    }

    #[test]
    fn a_multi_user_reply_comes_back_as_it_went() {
        let route = Route { shard: ShardId(3), leader: None, index: Some(LogIndex(9)) };
        let reply = FetchedMany {
            results: vec![
                UserResult {
                    user: UserId::new("bob").unwrap(),
                    route: route.clone(),
                    outcome: UserOutcome::Fetched(Fetched {
                        user: UserId::new("bob").unwrap(),
                        device_list_seq: None,
                        bundles: vec![serde_json::from_value(bundle()).unwrap()],
                        repeated: true,
                        as_of: None,
                    }),
                },
                UserResult {
                    user: UserId::new("nobody").unwrap(),
                    route,
                    outcome: UserOutcome::Problem(Problem::new(Code::UnknownUser, "no such user")),
                },
            ],
        };
        let json = serde_json::to_string(&reply).unwrap();
        assert_eq!(serde_json::from_str::<FetchedMany>(&json).unwrap(), reply);
    }
}
