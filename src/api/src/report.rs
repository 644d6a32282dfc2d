//! Why handshakes fail, as devices count it.
//!
//! Guarantees: a report is counts by reason and nothing else. No user, device, key, prekey id,
//! message or time is in it, so that nothing in it leads to a contact.
//!
//! Leaves out: exactness. A report whose reply was lost may be counted twice, and what a device
//! counted before it was switched off is lost: this is for a graph, not for a ledger.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// Why a handshake failed. Stable, never reuse.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        pub enum Reason {
            $($(#[$doc])* #[serde(rename = $text)] $name,)*
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The reason as text.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

reasons! {
    /// A message names a one-time prekey that the device does not hold and has not used.
    OpkMissing = "opk_missing";
    /// A second message names a one-time prekey that has served: a server handed it out twice, or
    /// a sender used a bundle twice.
    OpkReused = "opk_reused";
    /// A message names a signed prekey that the device no longer holds, or never held.
    SpkUnknown = "spk_unknown";
    /// A server handed out a signed prekey past its time.
    SpkExpired = "spk_expired";
    /// A signature in a bundle is wrong.
    SignatureInvalid = "signature_invalid";
    /// An identity key is not the one pinned or listed.
    IdentityChanged = "identity_changed";
    /// A message came again.
    Replay = "replay";
    /// A message does not authenticate.
    AeadFailed = "aead_failed";
}

/// `POST` [`REPORTS`](crate::path::REPORTS): how often handshakes failed since the last report, at
/// most [`REPORT_COUNT_MAX`](oncekey_types::limits::REPORT_COUNT_MAX) for each reason. The reply
/// has no body.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Report(pub BTreeMap<Reason, u32>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_an_object_of_counts() {
        let json = r#"{"opk_missing":3,"aead_failed":1}"#;
        let report: Report = serde_json::from_str(json).unwrap();
        assert_eq!(report.0, BTreeMap::from([(Reason::OpkMissing, 3), (Reason::AeadFailed, 1)]));
        assert_eq!(serde_json::to_string(&report).unwrap(), json);
        assert_eq!(serde_json::from_str::<Report>("{}").unwrap(), Report::default());
    }

    #[test]
    fn a_reason_has_one_name() {
        for reason in Reason::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
    }

    #[test]
    fn anything_but_a_known_reason_and_its_count_is_refused() {
        for json in [
            r#"{"peer":1}"#,
            r#"{"opk_missing":-1}"#,
            r#"{"opk_missing":1.5}"#,
            r#"{"opk_missing":"bob"}"#,
            r#"{"opk_missing":4294967296}"#,
        ] {
            assert!(serde_json::from_str::<Report>(json).is_err(), "{json} was taken");
        }
    }
}
