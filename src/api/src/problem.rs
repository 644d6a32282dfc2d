//! Problem documents (RFC 9457).
//!
//! Guarantees: every error code stands here once, with its HTTP status, its title and whether a
//! retry can help. Codes and their meaning are stable within version 1. A problem changed nothing,
//! unless its code says that the outcome is unknown.
//!
//! Leaves out: the few replies that come before HTTP is understood (a request line or headers that
//! cannot be parsed or are too large), which have a status and no body.

use std::{fmt, str::FromStr};

use oncekey_types::{DeviceId, Epoch, OneTimePreKeyId, RegistrationId, Seq, SignedPreKeyId};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::bundle::OneTimePreKeyStatus;

/// What may help after a problem.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Retry {
    /// Nothing but another request.
    No,
    /// The same request, here later or at another node now; nothing was changed.
    Yes,
    /// The same: but the request may have been carried out. A retry under the same idempotency key
    /// or `seq` finds out.
    Unknown,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $status:literal, $title:literal, $retry:ident;)*) => {
        /// What went wrong. Stable, never reuse.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[$doc])* $name,)*
            /// A code that this version does not know; judge by the status of the reply.
            Other,
        }

        impl Code {
            /// Every code with a name of its own.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The code as text.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                    Self::Other => "other",
                }
            }

            /// The HTTP status of a reply with this code.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self {
                    $(Self::$name => $status,)*
                    Self::Other => 500,
                }
            }

            /// A short summary, the same for every occurrence.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self {
                    $(Self::$name => $title,)*
                    Self::Other => "Another problem",
                }
            }

            const fn retry(self) -> Retry {
                match self {
                    $(Self::$name => Retry::$retry,)*
                    Self::Other => Retry::No,
                }
            }
        }

        impl FromStr for Code {
            type Err = std::convert::Infallible;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Ok(match text {
                    $($text => Self::$name,)*
                    _ => Self::Other,
                })
            }
        }
    };
}

codes! {
    /// The body is not JSON.
    MalformedJson = "malformed_json", 400, "The body is not JSON", No;
    /// A part of the path is not percent-encoded UTF-8, or not an id in its range.
    MalformedPath = "malformed_path", 400, "A part of the path is malformed", No;
    /// The query string has an unknown or malformed parameter.
    MalformedQuery = "malformed_query", 400, "The query string is malformed", No;
    /// A header has a value outside its limits.
    MalformedHeader = "malformed_header", 400, "A header is malformed", No;
    /// A fetch without `Idempotency-Key`.
    IdempotencyKeyMissing = "idempotency_key_missing", 400, "The idempotency key is missing", No;
    /// A removal that the device itself asks for, without `seq`.
    SeqMissing = "seq_missing", 400, "The number of the write is missing", No;

    /// A request that needs a token came without one.
    TokenMissing = "token_missing", 401, "A token is required", No;
    /// The token is not one of the operator's for this service, or not of the form required.
    TokenInvalid = "token_invalid", 401, "The token is not valid", No;
    /// The token's time is over, or has not come yet.
    TokenExpired = "token_expired", 401, "The token is not valid at this time", No;
    /// A request that a device signs came without a signature.
    SignatureMissing = "signature_missing", 401, "The device must sign this request", No;
    /// The request's signature has another form than required, covers something else, or was not
    /// made with the device's authentication key.
    RequestSignatureInvalid =
        "request_signature_invalid", 401, "The request's signature is not valid", No;
    /// The request's signature is too old, of the future, or valid for too long.
    SignatureExpired =
        "signature_expired", 401, "The request's signature is not valid at this time", No;

    /// The token is of another user than the one that the request is about.
    OtherUser = "other_user", 403, "The token is of another user", No;
    /// The token lacks the scope that the request needs.
    ScopeMissing = "scope_missing", 403, "The token lacks a scope", No;

    /// No such resource.
    NotFound = "not_found", 404, "There is no such resource", No;
    /// No device of the user is registered.
    UnknownUser = "unknown_user", 404, "The user is not known", No;
    /// The device is not registered.
    UnknownDevice = "unknown_device", 404, "The device is not registered", No;
    /// The cluster has no such node.
    UnknownNode = "unknown_node", 404, "The cluster has no such node", No;
    /// The cluster, or the node that was asked, has no such shard.
    UnknownShard = "unknown_shard", 404, "There is no such shard", No;
    /// The resource has no such method.
    MethodNotAllowed = "method_not_allowed", 405, "The method is not allowed here", No;
    /// The body did not arrive in time.
    RequestTimeout = "request_timeout", 408, "The body did not arrive in time", Yes;

    /// The write's `seq` is lower than the last one accepted, or names another write.
    StaleSeq = "stale_seq", 409, "The write's seq was used before", No;
    /// The write was made for another registration than the device's current one, or the
    /// registration follows another.
    RegistrationChanged =
        "registration_changed", 409, "The device has registered anew", No;
    /// The signed prekey's id is not above the current one.
    SignedPreKeyIdNotGrowing =
        "signed_prekey_id_not_growing", 409, "The signed prekey id does not grow", No;
    /// One-time prekey ids at or below the highest ever accepted, or not growing.
    OneTimePreKeyIdsNotGrowing =
        "one_time_prekey_ids_not_growing", 409, "One-time prekey ids do not grow", No;
    /// The pool would be over its limit.
    PoolFull = "pool_full", 409, "The pool is full", No;
    /// The user has as many devices as are allowed.
    TooManyDevices = "too_many_devices", 409, "The user has too many devices", No;
    /// The device list is not the next one of its chain.
    DeviceListOutOfOrder =
        "device_list_out_of_order", 409, "The device list is not the next one", No;
    /// The device list names another list as the one before.
    DeviceListBrokenChain =
        "device_list_broken_chain", 409, "The device list does not continue the chain", No;
    /// The device list is of another account key than the user's first one.
    DeviceListOtherAccount =
        "device_list_other_account", 409, "The device list is of another account key", No;
    /// A one-time prekey was required and there is none to give; nothing was popped.
    OneTimePreKeyRequired =
        "one_time_prekey_required", 409, "There is no one-time prekey to give", No;
    /// The write's keys were made for another epoch of the cluster: make new ones.
    EpochChanged = "epoch_changed", 409, "The cluster is in another epoch", No;
    /// Only a cluster in which nothing was ever done can be restored.
    ClusterNotNew = "cluster_not_new", 409, "The cluster is not new", No;
    /// The nodes named cannot be exchanged.
    MembershipConflict =
        "membership_conflict", 409, "The members do not allow this change", No;

    /// The body is over its limit.
    BodyTooLarge = "body_too_large", 413, "The body is too large", No;
    /// The body is not declared as JSON.
    UnsupportedMediaType =
        "unsupported_media_type", 415, "The body must be application/json", No;

    /// The device has reported a moment ago; nothing was counted.
    TooManyReports = "too_many_reports", 429, "The device has reported a moment ago", No;

    /// The client's address sends requests faster than it may.
    TooManyRequests =
        "too_many_requests", 429, "The address sends too many requests", Yes;

    /// JSON of another form: a field is missing, unknown, or of the wrong type.
    InvalidBody = "invalid_body", 422, "The body does not have the required form", No;
    /// A list has too many or too few members, or is out of order.
    LimitExceeded = "limit_exceeded", 422, "A limit is exceeded", No;
    /// A key has the wrong length, a non-canonical encoding, or is a weak point.
    InvalidKey = "invalid_key", 422, "A public key is not valid", No;
    /// A signature does not verify.
    InvalidSignature = "invalid_signature", 422, "A signature does not verify", No;
    /// A signed prekey is expired, or its times make no sense.
    InvalidValidity = "invalid_validity", 422, "The times of a signed prekey are not valid", No;
    /// The signed device list cannot be parsed, or is of another user.
    InvalidDeviceList = "invalid_device_list", 422, "The device list is not valid", No;
    /// The idempotency key was used for another request.
    IdempotencyKeyReused =
        "idempotency_key_reused", 422, "The idempotency key was used for another request", No;

    /// The node has a local fault and stops; another node can answer.
    Internal = "internal", 500, "The node failed", Unknown;
    /// The node has as much to do as it takes on.
    Overloaded = "overloaded", 503, "The node is overloaded", Yes;
    /// No quorum was within reach in time; whether a write was carried out is unknown.
    NoQuorum = "no_quorum", 503, "No quorum is within reach", Unknown;
    /// The node is shutting down and did not take the request; another node can answer.
    ShuttingDown = "shutting_down", 503, "The node is shutting down", Yes;
    /// The keys that tokens are checked with are out of reach.
    KeysUnavailable =
        "keys_unavailable", 503, "The keys of the tokens are out of reach", Yes;
    /// The node is not ready to serve.
    NotReady = "not_ready", 503, "The node is not ready", Yes;
    /// The node could not answer in time; whether a write was carried out is unknown.
    Timeout = "timeout", 504, "The node could not answer in time", Unknown;
}

impl Code {
    /// Whether the same request, with the same idempotency key or `seq`, may succeed later or at
    /// another node.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        !matches!(self.retry(), Retry::No)
    }

    /// Whether the request may have been carried out all the same.
    #[must_use]
    pub const fn is_outcome_unknown(self) -> bool {
        matches!(self.retry(), Retry::Unknown)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// An error as the reply carries it.
///
/// In JSON it has the members `type`, `title`, `status`, `code` and `detail`, and those of
/// [`Members`] that are set.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(into = "Document", from = "Document")]
pub struct Problem {
    /// What went wrong.
    pub code: Code,
    /// What went wrong this time, for the person who sent the request; may quote it, so it is not
    /// for logs.
    pub detail: String,
    /// What went wrong this time, for a program to read.
    pub members: Box<Members>,
}

/// Extension members of a [`Problem`]; the code says which of them are set.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Members {
    /// The part of the body that is to blame, as a JSON pointer (RFC 6901).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// The device that is to blame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceId>,
    /// One-time prekey ids in conflict.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<OneTimePreKeyId>,
    /// Highest one-time prekey id ever accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub highest: Option<OneTimePreKeyId>,
    /// The current signed prekey.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_prekey: Option<SignedPreKeyId>,
    /// Number of the last write accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<Seq>,
    /// The device's current registration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration: Option<RegistrationId>,
    /// The position that would continue the chain of device lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<Seq>,
    /// The cluster's epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// How many there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// How many are allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Why there is no one-time prekey.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_time_prekey_status: Option<OneTimePreKeyStatus>,
    /// Why the node is not ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
}

impl Problem {
    /// A problem without extension members.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self::with(code, detail, Members::default())
    }

    /// A problem with extension members.
    #[must_use]
    pub fn with(code: Code, detail: impl Into<String>, members: Members) -> Self {
        Self { code, detail: detail.into(), members: Box::new(members) }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.detail)
    }
}

impl std::error::Error for Problem {}

/// The JSON form.
#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct Document {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    title: String,
    #[serde(default)]
    status: u16,
    code: Code,
    #[serde(default)]
    detail: String,
    #[serde(flatten)]
    members: Box<Members>,
}

impl From<Problem> for Document {
    fn from(problem: Problem) -> Self {
        Self {
            kind: format!("urn:oncekey:problem:{}", problem.code),
            title: problem.code.title().to_owned(),
            status: problem.code.status(),
            code: problem.code,
            detail: problem.detail,
            members: problem.members,
        }
    }
}

impl From<Document> for Problem {
    fn from(document: Document) -> Self {
        Self { code: document.code, detail: document.detail, members: document.members }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;

    #[test]
    fn a_problem_has_the_standard_members_and_its_own() {
        let problem = Problem::with(
            Code::OneTimePreKeyIdsNotGrowing,
            "2 ids do not grow",
            Members {
                conflicts: vec![OneTimePreKeyId(3), OneTimePreKeyId(4)],
                highest: Some(OneTimePreKeyId(4)),
                ..Members::default()
            },
        );
        let json = serde_json::to_value(&problem).unwrap();
        assert_eq!(
            json,
            json!({
                "type": "urn:oncekey:problem:one_time_prekey_ids_not_growing",
                "title": "One-time prekey ids do not grow",
                "status": 409,
                "code": "one_time_prekey_ids_not_growing",
                "detail": "2 ids do not grow",
                "conflicts": [3, 4],
                "highest": 4,
            })
        );
        assert_eq!(serde_json::from_value::<Problem>(json).unwrap(), problem);
    }

    #[test]
    fn a_code_is_unique_and_comes_back_from_its_text() {
        let texts: BTreeSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(texts.len(), Code::ALL.len());
        for code in Code::ALL {
            assert_eq!(code.as_str().parse(), Ok(*code));
            assert!((400..600).contains(&code.status()), "{code}");
        }
    }

    #[test]
    fn a_code_of_a_later_version_is_read_as_another_problem() {
        let problem: Problem =
            serde_json::from_value(json!({"code": "moon_phase", "phase": 3})).unwrap();
        assert_eq!(problem.code, Code::Other);
        assert!(!problem.code.is_retryable());
    }

    #[test]
    fn an_unknown_outcome_is_worth_a_retry() {
        for code in Code::ALL {
            assert!(!code.is_outcome_unknown() || code.is_retryable(), "{code}");
            assert!(code.status() >= 500 || !code.is_outcome_unknown(), "{code}");
        }
    }
}
