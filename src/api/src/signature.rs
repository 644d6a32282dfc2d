//! What a device signs of a request: an HTTP message signature (RFC 9421) with its authentication key.
//!
//! Guarantees: one set of components, in one order, and one set of parameters, so that nothing of a
//! request is left out and nothing can be added: the method, the authority, the path, the query and
//! the digest of the body (RFC 9530); when it was made, when it ends, who signed, how and for what.
//!
//! Leaves out: keys; and reading what others send, which the server does.
//!
//! ```text
//! Content-Digest: sha-256=:…:
//! Signature-Input: oncekey=("@method" "@authority" "@path" "@query" "content-digest")
//!     ;created=1790000000;expires=1790000060;keyid="bob/1";alg="ed25519";tag="oncekey"
//! Signature: oncekey=:…:
//! ```

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use oncekey_types::UnixSeconds;
use sha2::{Digest as _, Sha256};

/// The components that a signature covers, in their order.
pub const COMPONENTS: [&str; 5] = ["@method", "@authority", "@path", "@query", "content-digest"];
/// The label under which a client of this crate sends its signature. A server takes any.
pub const LABEL: &str = "oncekey";
/// What the signature is for: the parameter `tag`.
pub const TAG: &str = "oncekey";
/// The algorithm: the parameter `alg`.
pub const ALGORITHM: &str = "ed25519";
/// Longest time from `created` to `expires`.
pub const LIFETIME_MAX_S: u64 = 60;
/// What a server answers a request with that lacks its signature.
pub const ACCEPT: &str = concat!(
    r#"oncekey=("@method" "@authority" "@path" "@query" "content-digest")"#,
    r#";created;expires;keyid;alg="ed25519";tag="oncekey""#
);

/// What of a request is signed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Components<'a> {
    /// The method, in upper case.
    pub method: &'a str,
    /// Host and port as the field `Host` has them.
    pub authority: &'a str,
    /// The path as it is sent.
    pub path: &'a str,
    /// The query as it is sent, without the question mark; none when there is none.
    pub query: Option<&'a str>,
    /// The field `Content-Digest`; see [`content_digest`].
    pub content_digest: &'a str,
}

/// Who signs, and when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parameters<'a> {
    /// When the signature is made.
    pub created: UnixSeconds,
    /// When it ends; at most [`LIFETIME_MAX_S`] later.
    pub expires: UnixSeconds,
    /// The device; see [`path::key_id`](crate::path::key_id).
    pub key_id: &'a str,
}

impl Components<'_> {
    /// The bytes that are signed (RFC 9421, section 2.5); `parameters` is the inner list with its
    /// parameters as `Signature-Input` has it.
    #[must_use]
    pub fn base(&self, parameters: &str) -> String {
        let Self { method, authority, path, query, content_digest } = self;
        let query = query.unwrap_or_default();
        // The authority of a URI has no case.
        let authority = authority.to_ascii_lowercase();
        format!(
            "\"@method\": {method}\n\"@authority\": {authority}\n\"@path\": {path}\n\
             \"@query\": ?{query}\n\"content-digest\": {content_digest}\n\
             \"@signature-params\": {parameters}"
        )
    }
}

impl fmt::Display for Parameters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { created, expires, key_id } = self;
        let components = COMPONENTS.map(|name| format!("\"{name}\"")).join(" ");
        write!(
            f,
            "({components});created={};expires={};keyid=\"{key_id}\";alg=\"{ALGORITHM}\";tag=\"{TAG}\"",
            created.0, expires.0
        )
    }
}

/// The field `Content-Digest` of `body`.
#[must_use]
pub fn content_digest(body: &[u8]) -> String {
    format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(body)))
}

/// The field `Signature` with these bytes.
#[must_use]
pub fn signature(bytes: &[u8; 64]) -> String {
    format!("{LABEL}=:{}:", STANDARD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_base_is_the_one_of_the_standard() {
        let parameters = Parameters {
            created: UnixSeconds(1_618_884_473),
            expires: UnixSeconds(1_618_884_533),
            key_id: "bob/1",
        };
        let components = Components {
            method: "POST",
            authority: "Example.com",
            path: "/foo",
            query: Some("param=Value&Pet=dog"),
            content_digest: &content_digest(b"{\"hello\": \"world\"}"),
        };
        // The request of RFC 9421, appendix B.2; its digest there is sha-512.
        assert_eq!(
            components.base(&parameters.to_string()),
            "\"@method\": POST\n\
             \"@authority\": example.com\n\
             \"@path\": /foo\n\
             \"@query\": ?param=Value&Pet=dog\n\
             \"content-digest\": sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:\n\
             \"@signature-params\": (\"@method\" \"@authority\" \"@path\" \"@query\" \
             \"content-digest\");created=1618884473;expires=1618884533;keyid=\"bob/1\"\
             ;alg=\"ed25519\";tag=\"oncekey\""
        );
    }

    #[test]
    fn a_request_without_a_query_signs_the_question_mark_alone() {
        let components = Components {
            method: "GET",
            authority: "node:8080",
            path: "/",
            query: None,
            content_digest: &content_digest(b""),
        };
        let base = components.base("()");
        assert!(
            base.contains("\"@authority\": node:8080\n\"@path\": /\n\"@query\": ?\n"),
            "{base}"
        );
    }

    #[test]
    fn what_is_asked_for_is_what_is_sent() {
        let at = UnixSeconds(1);
        let sent = Parameters { created: at, expires: at, key_id: "x" }.to_string();
        let asked = sent.replace("=1", "").replace("=\"x\"", "");
        assert_eq!(ACCEPT, format!("{LABEL}={asked}"));
    }
}
