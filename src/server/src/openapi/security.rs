//! Who may ask for what, described.
//!
//! A signature (RFC 9421) is three fields that come together; OpenAPI has no scheme for it, so each
//! is described as a key in a header.

use oncekey_api::{
    Code::{self, *},
    header,
};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};

/// What a request shows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Credential {
    /// A user's token.
    Token,
    /// The token of the user whom the path names.
    OwnToken,
    /// A token with the scope of operators.
    OperatorToken,
    /// A signature of the device.
    Signature,
}

/// What of it a node asks for: nothing when it is open, nothing of operators on loopback.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Guards {
    /// Of clients.
    pub(crate) clients: bool,
    /// Of operators.
    pub(crate) operators: bool,
}

const TOKEN: &str = "token";
const OPERATOR_TOKEN: &str = "operator_token";
const SIGNATURE: [(&str, &str, &str); 3] = [
    ("content_digest", header::CONTENT_DIGEST, "The SHA-256 of the body (RFC 9530)."),
    (
        "signature_input",
        header::SIGNATURE_INPUT,
        "What the device signed, when and until when (RFC 9421): the method, the authority, the \
         path, the query and the digest, with the tag `oncekey`.",
    ),
    ("signature", header::SIGNATURE, "The signature, by the device's authentication key."),
];

impl Credential {
    /// The problems of those who lack it.
    pub(super) fn codes(self) -> Vec<Code> {
        let token = [TokenMissing, TokenInvalid, TokenExpired, KeysUnavailable, MalformedHeader];
        match self {
            Self::Token => token.to_vec(),
            Self::OwnToken => [&token[..], &[OtherUser]].concat(),
            Self::OperatorToken => [&token[..], &[ScopeMissing]].concat(),
            Self::Signature => {
                vec![SignatureMissing, RequestSignatureInvalid, SignatureExpired, MalformedHeader]
            }
        }
    }

    fn add_to(self, requirement: SecurityRequirement) -> SecurityRequirement {
        let names = match self {
            Self::Token | Self::OwnToken => vec![TOKEN],
            Self::OperatorToken => vec![OPERATOR_TOKEN],
            Self::Signature => SIGNATURE.map(|(name, ..)| name).to_vec(),
        };
        names.into_iter().fold(requirement, |all, name| all.add(name, [""; 0]))
    }
}

/// One requirement for each way in which a request may show who asks; one of them is met.
pub(super) fn requirements(ways: &[&[Credential]]) -> Vec<SecurityRequirement> {
    let way = |credentials: &&[Credential]| {
        let none = SecurityRequirement::default();
        credentials.iter().fold(none, |all, credential| credential.add_to(all))
    };
    ways.iter().map(way).collect()
}

/// How each credential is sent.
pub(super) fn schemes() -> Vec<(&'static str, SecurityScheme)> {
    let bearer = |description| {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT");
        SecurityScheme::Http(scheme.description(Some(description)).build())
    };
    let mut schemes = vec![
        (TOKEN, bearer("A token of the operator's account system; `sub` is the user.")),
        (OPERATOR_TOKEN, bearer("The same with the scope of operators.")),
    ];
    schemes.extend(SIGNATURE.map(|(name, field, description)| {
        let key = ApiKeyValue::with_description(field, description);
        (name, SecurityScheme::ApiKey(ApiKey::Header(key)))
    }));
    schemes
}
