//! What a device signed of a request (RFC 9421).
//!
//! Guarantees: what is read here covers the method, the authority, the path, the query and the body
//! as they arrived, exactly these and in this order; it is for this service, was made within the
//! last minute by this node's clock, give or take the skew allowed, and for no longer than a minute.
//!
//! Leaves out: whose key it was made with ([`SignedRequest::verify`] takes one), and replays within
//! its minute: a write's `seq` tells those, and a read changes nothing.

use std::time::Duration;

use axum::http::request::Parts;
use oncekey_api::{
    Code, Problem, header,
    signature::{ALGORITHM, COMPONENTS, Components, LIFETIME_MAX_S, TAG, content_digest},
};
use oncekey_types::TimestampMs;
use oncekey_x3dh::keys::{AuthenticationPublic, Signature};
use sfv::{BareItem, Dictionary, FieldType as _, InnerList, List, ListEntry, Parser};

use super::{Received, single_header};

const HOST: &str = "host";

/// A signature whose form, time and digest are good; not verified yet.
pub(crate) struct SignedRequest {
    /// Who says to have signed.
    pub(crate) key_id: String,
    pub(super) base: String,
    signature: Signature,
}

/// What a signature must fit.
#[derive(Clone, Copy)]
pub(crate) struct Expected<'a> {
    pub(crate) now: TimestampMs,
    /// How far the clocks of device and node may be apart.
    pub(crate) skew: Duration,
    /// The names that the service goes by; any when empty.
    pub(crate) authorities: &'a [String],
}

impl SignedRequest {
    /// Reads the signature of `request`.
    pub(crate) fn read(request: Received<'_>, expected: Expected<'_>) -> Result<Self, Problem> {
        let Received { head, body } = request;
        let Some(input) = single_header(head, header::SIGNATURE_INPUT)? else {
            return Err(missing());
        };
        let signatures = single_header(head, header::SIGNATURE)?.ok_or_else(missing)?;
        let (label, input) = ours(input)?;
        let parameters = Parameters::of(&input)?;
        parameters.check_time(expected)?;
        let digest = single_header(head, header::CONTENT_DIGEST)?
            .ok_or_else(|| invalid("the field content-digest is missing"))?;
        if digest != content_digest(body) {
            return Err(invalid("content-digest is not the sha-256 of the body"));
        }
        let components = Components {
            method: head.method.as_str(),
            authority: authority(head, expected.authorities)?,
            path: head.uri.path(),
            query: head.uri.query(),
            content_digest: digest,
        };
        let text: List = vec![ListEntry::InnerList(input)];
        let text = text.serialize().ok_or_else(malformed)?;
        let base = components.base(&text);
        let signature = signature_under(signatures, &label)?;
        Ok(Self { key_id: parameters.key_id, base, signature })
    }

    /// Whether `key` made it.
    pub(crate) fn verify(&self, key: &AuthenticationPublic) -> bool {
        key.verify(self.base.as_bytes(), &self.signature).is_ok()
    }
}

/// The problem of a signature that the device's key did not make.
pub(crate) fn not_its_key() -> Problem {
    invalid("the device's authentication key did not make it")
}

/// The problem of a request that is not signed.
fn missing() -> Problem {
    Problem::new(
        Code::SignatureMissing,
        "the fields signature-input and signature are needed (RFC 9421)",
    )
}

fn invalid(detail: &str) -> Problem {
    Problem::new(Code::RequestSignatureInvalid, detail)
}

fn malformed() -> Problem {
    invalid("signature-input is malformed")
}

/// The one signature that is meant for this service, with its label. Others may stand beside it.
fn ours(input: &str) -> Result<(String, InnerList), Problem> {
    let fields: Dictionary = Parser::new(input).parse().map_err(|_| malformed())?;
    let mut ours = fields.into_iter().filter_map(|(label, entry)| match entry {
        ListEntry::InnerList(list) if text(&list, "tag") == Some(TAG) => {
            Some((label.as_str().to_owned(), list))
        }
        ListEntry::InnerList(_) | ListEntry::Item(_) => None,
    });
    match (ours.next(), ours.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(invalid("no signature has the tag of this service")),
        (Some(_), Some(_)) => Err(invalid("more than one signature has the tag of this service")),
    }
}

struct Parameters {
    created: u64,
    expires: u64,
    key_id: String,
}

impl Parameters {
    fn of(input: &InnerList) -> Result<Self, Problem> {
        let bare = input.items.iter().all(|item| item.params.is_empty());
        let names =
            input.items.iter().map(|item| item.bare_item.as_string().map(|name| name.as_str()));
        if !bare || !names.eq(COMPONENTS.into_iter().map(Some)) {
            return Err(invalid(
                "it must cover @method, @authority, @path, @query and content-digest, in this order",
            ));
        }
        if text(input, "alg") != Some(ALGORITHM) {
            return Err(invalid("the parameter alg must be ed25519"));
        }
        let key_id =
            text(input, "keyid").ok_or_else(|| invalid("the parameter keyid is missing"))?;
        let (Some(created), Some(expires)) = (seconds(input, "created"), seconds(input, "expires"))
        else {
            return Err(invalid("the parameters created and expires are needed"));
        };
        // These five, and the tag is there.
        if input.params.len() != 5 {
            return Err(invalid("it has a parameter that is not known here"));
        }
        Ok(Self { created, expires, key_id: key_id.to_owned() })
    }

    fn check_time(&self, expected: Expected<'_>) -> Result<(), Problem> {
        let Self { created, expires, .. } = *self;
        let expired = |detail: String| Err(Problem::new(Code::SignatureExpired, detail));
        if expires <= created || expires - created > LIFETIME_MAX_S {
            return expired(format!("it must be valid for 1 to {LIFETIME_MAX_S} seconds"));
        }
        let (now, skew) = (expected.now.to_seconds().0, expected.skew.as_secs());
        if created > now.saturating_add(skew) || expires.saturating_add(skew) < now {
            return expired(format!("it is not valid now; the time here is {now}"));
        }
        Ok(())
    }
}

fn text<'a>(list: &'a InnerList, name: &str) -> Option<&'a str> {
    list.params.get(name).and_then(BareItem::as_string).map(|text| text.as_str())
}

fn seconds(list: &InnerList, name: &str) -> Option<u64> {
    let value = list.params.get(name).and_then(BareItem::as_integer)?;
    u64::try_from(i64::from(value)).ok()
}

fn authority<'a>(head: &'a Parts, known: &[String]) -> Result<&'a str, Problem> {
    let host = single_header(head, HOST)?.ok_or_else(|| invalid("the field host is missing"))?;
    if known.is_empty() || known.iter().any(|known| known.eq_ignore_ascii_case(host)) {
        return Ok(host);
    }
    Err(invalid("the field host does not name this service"))
}

fn signature_under(signatures: &str, label: &str) -> Result<Signature, Problem> {
    let malformed = || invalid("the field signature is malformed");
    let fields: Dictionary = Parser::new(signatures).parse().map_err(|_| malformed())?;
    let Some(ListEntry::Item(item)) = fields.get(label) else {
        return Err(invalid("the field signature lacks the label of signature-input"));
    };
    let bytes = item.bare_item.as_byte_sequence().ok_or_else(malformed)?;
    let bytes = <[u8; 64]>::try_from(bytes).map_err(|_| malformed())?;
    Ok(Signature::from_bytes(bytes))
}
