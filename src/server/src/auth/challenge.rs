//! What a refused request is told that it lacks (RFC 6750, section 3; RFC 9421, section 5.1).

use axum::http::{HeaderMap, HeaderName, HeaderValue, header::WWW_AUTHENTICATE};
use oncekey_api::{Code, header, signature};

/// Adds to the headers of a reply with `code` what a client can do about it.
pub(crate) fn challenge(code: Code, headers: &mut HeaderMap) {
    let lacks = match code {
        Code::TokenMissing => "Bearer realm=\"oncekey\"",
        Code::TokenInvalid => "Bearer realm=\"oncekey\", error=\"invalid_token\"",
        Code::TokenExpired => {
            "Bearer realm=\"oncekey\", error=\"invalid_token\", \
             error_description=\"not valid at this time\""
        }
        Code::ScopeMissing => "Bearer realm=\"oncekey\", error=\"insufficient_scope\"",
        Code::SignatureMissing | Code::RequestSignatureInvalid | Code::SignatureExpired => {
            let accept = HeaderValue::from_static(signature::ACCEPT);
            headers.insert(HeaderName::from_static(header::ACCEPT_SIGNATURE), accept);
            // A 401 must name a scheme; message signatures have none of their own.
            "Signature realm=\"oncekey\""
        }
        _ => return,
    };
    headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(lacks));
}
