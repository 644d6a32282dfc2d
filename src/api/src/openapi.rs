//! Schemas that say more than a type does.
//!
//! Guarantees: a text that fits the schema of bytes is base64url without padding and without stray
//! bits, of the right length for a key or a signature. Leaves out: points and signatures, which no
//! schema can check.

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type, schema::AdditionalProperties},
};

use oncekey_types::limits::REPORT_COUNT_MAX;

use crate::{
    Base64, Code, Problem,
    problem::Document,
    report::{Reason, Report},
};

/// 32 bytes.
pub(crate) struct PublicKey;

/// 64 bytes.
pub(crate) struct Signature;

fn text(pattern: &str, description: &str) -> RefOr<Schema> {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(pattern))
        .content_encoding("base64url")
        .description(Some(description))
        .into()
}

impl PartialSchema for Base64 {
    fn schema() -> RefOr<Schema> {
        text(
            "^([A-Za-z0-9_-]{4})*([A-Za-z0-9_-][AQgw]|[A-Za-z0-9_-]{2}[AEIMQUYcgkosw048])?$",
            "Bytes in base64url without padding.",
        )
    }
}

impl ToSchema for Base64 {}

impl PartialSchema for PublicKey {
    fn schema() -> RefOr<Schema> {
        text(
            "^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$",
            "A public key of 32 bytes in base64url without padding. Its encoding is canonical and \
             its point of full order.",
        )
    }
}

impl ToSchema for PublicKey {}

impl PartialSchema for Signature {
    fn schema() -> RefOr<Schema> {
        text("^[A-Za-z0-9_-]{85}[AQgw]$", "A signature of 64 bytes in base64url without padding.")
    }
}

impl ToSchema for Signature {}

impl PartialSchema for Code {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some(Self::ALL.iter().map(|code| code.as_str())))
            .description(Some("What went wrong. Stable within version 1; there may be more."))
            .into()
    }
}

impl ToSchema for Code {}

impl PartialSchema for Problem {
    fn schema() -> RefOr<Schema> {
        Document::schema()
    }
}

impl ToSchema for Problem {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        Document::schemas(schemas);
    }
}

impl PartialSchema for Report {
    fn schema() -> RefOr<Schema> {
        let count = || {
            ObjectBuilder::new()
                .schema_type(Type::Integer)
                .minimum(Some(0))
                .maximum(Some(REPORT_COUNT_MAX))
        };
        Reason::ALL
            .iter()
            .fold(ObjectBuilder::new(), |report, reason| report.property(reason.as_str(), count()))
            .additional_properties(Some(AdditionalProperties::FreeForm(false)))
            .description(Some("How often handshakes failed since the last report, by reason."))
            .into()
    }
}

impl ToSchema for Report {}
