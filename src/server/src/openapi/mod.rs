//! The interface, described: OpenAPI 3.1.
//!
//! Guarantees: every path that a node serves is described, with the schemas of the wire types
//! themselves, every problem that an operation can be answered with, by status, and what this node
//! wants to see of who asks. An outside fuzzer holds a running node against it
//! (`tests/schemathesis.sh`).
//!
//! Leaves out: what no schema can say, as whether a signature verifies.

mod body;
mod operations;
mod security;

use std::collections::{BTreeMap, BTreeSet};

use oncekey_api::{Code, Problem, cluster, header};
use oncekey_types::{BackupId, DeviceId, Epoch, LogIndex, RequestId, Seq, ShardId, UserId};
use utoipa::{
    PartialSchema as _,
    openapi::{
        Components, Content, Info, ObjectBuilder, OpenApi, OpenApiBuilder, PathsBuilder, Ref,
        RefOr, Required, Response, ResponseBuilder, Schema, Type,
        header::HeaderBuilder,
        path::{OperationBuilder, Parameter, ParameterBuilder, ParameterIn, PathItem},
        request_body::RequestBodyBuilder,
        schema::ComponentsBuilder,
        security::SecurityRequirement,
        tag::Tag,
    },
};

use body::Body;
use operations::{Asks, OPERATIONS, Operation, Query, Reply};
pub(crate) use security::Guards;

const CLIENTS: &str = "clients";
const OPERATORS: &str = "operators";

const DESCRIPTION: &str = "\
Bytes are base64url without padding; users are percent-encoded in paths; a request with a field \
that is not known is refused, a reply may gain fields. Problems are documents of RFC 9457 with a \
stable `code`. Operations for clients are served on the public listener, those for operators on \
the admin listener. Where this node lets everyone ask, the first requirement of an operation is empty.";

/// Problems of a body.
const OF_BODIES: &[Code] = &[
    Code::MalformedJson,
    Code::RequestTimeout,
    Code::BodyTooLarge,
    Code::UnsupportedMediaType,
    Code::InvalidBody,
];
/// Problems of every request of a client.
const OF_CLIENTS: &[Code] = &[
    Code::MalformedQuery,
    Code::TooManyRequests,
    Code::Internal,
    Code::Overloaded,
    Code::ShuttingDown,
    Code::Timeout,
];

/// The description of a node that asks for what `guards` says.
pub(crate) fn document(guards: Guards) -> OpenApi {
    let mut info = Info::new("Oncekey", "1");
    info.description = Some(DESCRIPTION.to_owned());
    let tags = [(CLIENTS, "What clients ask."), (OPERATORS, "What operators ask.")];
    let tags = tags.map(|(name, description)| {
        let mut tag = Tag::new(name);
        tag.description = Some(description.to_owned());
        tag
    });
    let paths = OPERATIONS.iter().fold(PathsBuilder::new(), |paths, operation| {
        let item = PathItem::new(operation.method.clone(), described(operation, guards));
        paths.path(operation.path, item)
    });
    OpenApiBuilder::new()
        .info(info)
        .tags(Some(tags))
        .paths(paths)
        .components(Some(components()))
        .build()
}

fn components() -> Components {
    let mut schemas = Vec::new();
    Body::of::<Problem>().collect(&mut schemas);
    for operation in OPERATIONS {
        let (Reply::Json(reply) | Reply::Routed(reply)) = &operation.reply else { continue };
        reply.collect(&mut schemas);
    }
    for request in OPERATIONS.iter().filter_map(|operation| operation.request) {
        request.collect(&mut schemas);
    }
    // The same schema is collected wherever it is referred to.
    let schemas: BTreeMap<_, _> = schemas.into_iter().collect();
    let mut components = ComponentsBuilder::new().schemas_from_iter(schemas);
    for (name, scheme) in security::schemes() {
        components = components.security_scheme(name, scheme);
    }
    components.build()
}

fn described(operation: &Operation, guards: Guards) -> OperationBuilder {
    let (tag, guarded) = match operation.asks {
        Asks::Operator => (OPERATORS, guards.operators),
        Asks::Client | Asks::Fetcher => (CLIENTS, guards.clients),
    };
    let request = operation.request.map(|body| {
        RequestBodyBuilder::new()
            .content("application/json", json(body.reference()))
            .required(Some(Required::True))
            .build()
    });
    let described = OperationBuilder::new()
        .operation_id(Some(operation.id))
        .summary(Some(operation.summary))
        .tag(tag)
        .parameters(Some(parameters(operation)))
        .securities(Some(securities(operation, guarded)))
        .request_body(request);
    let (status, reply) = success(&operation.reply);
    problems(operation)
        .into_iter()
        .fold(described.response(status, reply), |described, (status, codes)| {
            described.response(status.to_string(), problem(&codes))
        })
}

fn securities(operation: &Operation, guarded: bool) -> Vec<SecurityRequirement> {
    let mut securities = security::requirements(operation.needs);
    if !guarded && !securities.is_empty() {
        securities.insert(0, SecurityRequirement::default());
    }
    securities
}

fn json(schema: impl Into<RefOr<Schema>>) -> Content {
    Content::new(Some(schema))
}

fn parameters(operation: &Operation) -> Vec<Parameter> {
    let mut parameters = Vec::new();
    for (name, schema) in [("user", UserId::schema()), ("device", DeviceId::schema())] {
        let of_path = operation.path.contains(&format!("{{{name}}}"));
        if of_path || operation.query == Query::Device {
            let place = if of_path { ParameterIn::Path } else { ParameterIn::Query };
            parameters.push(parameter(name, place, Required::True, schema));
        }
    }
    let others =
        [("shard", ShardId::schema()), ("backup", BackupId::schema()), ("epoch", Epoch::schema())];
    for (name, schema) in others {
        if operation.path.contains(&format!("{{{name}}}")) {
            parameters.push(parameter(name, ParameterIn::Path, Required::True, schema));
        }
    }
    match operation.query {
        Query::None | Query::Device => {}
        Query::Seq => {
            parameters.push(parameter("seq", ParameterIn::Query, Required::False, Seq::schema()));
        }
        Query::State => {
            // The name and its one value are one constant.
            let (name, value) = cluster::WITH_STATE.split_once('=').unwrap_or_default();
            let schema =
                ObjectBuilder::new().schema_type(Type::String).enum_values(Some([value])).into();
            parameters.push(parameter(name, ParameterIn::Query, Required::False, schema));
        }
    }
    if operation.asks == Asks::Fetcher {
        let schema = RequestId::schema();
        let name = header::IDEMPOTENCY_KEY;
        parameters.push(parameter(name, ParameterIn::Header, Required::True, schema));
    }
    parameters
}

fn parameter(
    name: &str,
    place: ParameterIn,
    required: Required,
    schema: RefOr<Schema>,
) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(required)
        .schema(Some(schema))
        .build()
}

fn success(reply: &Reply) -> (&'static str, Response) {
    let response = ResponseBuilder::new();
    match reply {
        Reply::Routed(body) => (
            "200",
            routed(
                response.description("done").content("application/json", json(body.reference())),
            ),
        ),
        Reply::Json(body) => (
            "200",
            response
                .description("done")
                .content("application/json", json(body.reference()))
                .build(),
        ),
        Reply::RoutedEmpty => ("204", routed(response.description("done"))),
        Reply::Empty => ("204", response.description("done").build()),
        Reply::Other(media_type) => {
            let content = Content::new(None::<RefOr<Schema>>);
            ("200", response.description("done").content(*media_type, content).build())
        }
    }
}

/// With the headers that say where the answer comes from.
fn routed(response: ResponseBuilder) -> Response {
    let leader = ObjectBuilder::new().schema_type(Type::String).into();
    [
        (header::SHARD, ShardId::schema(), "The shard that answered."),
        (header::LEADER, leader, "Public address of the node that leads the shard, when known."),
        (header::INDEX, LogIndex::schema(), "Log index of the commit, when there was one."),
    ]
    .into_iter()
    .fold(response, |response, (name, schema, description)| {
        let header = HeaderBuilder::new().schema(Some(schema)).description(Some(description));
        response.header(name, header.build())
    })
    .build()
}

/// The problems that the operation can be answered with, by status.
fn problems(operation: &Operation) -> BTreeMap<u16, BTreeSet<&'static str>> {
    let mut codes = operation.codes.to_vec();
    for credential in operation.needs.iter().copied().flatten() {
        codes.extend(credential.codes());
    }
    if operation.path.contains('{') {
        codes.push(Code::MalformedPath);
    }
    if operation.request.is_some() {
        codes.extend(OF_BODIES);
    }
    match operation.asks {
        Asks::Fetcher => codes.extend([Code::IdempotencyKeyMissing, Code::MalformedHeader]),
        Asks::Client => {}
        Asks::Operator if operation.request.is_some() || operation.query != Query::None => {
            codes.push(Code::MalformedQuery);
        }
        Asks::Operator => {}
    }
    if operation.asks == Asks::Operator {
        codes.push(Code::Internal);
    } else {
        codes.extend(OF_CLIENTS);
    }
    let mut problems = BTreeMap::<_, BTreeSet<_>>::new();
    for code in codes {
        problems.entry(code.status()).or_default().insert(code.as_str());
    }
    problems
}

fn problem(codes: &BTreeSet<&str>) -> Response {
    let codes: Vec<_> = codes.iter().map(|code| format!("`{code}`")).collect();
    ResponseBuilder::new()
        .description(codes.join(", "))
        .content(header::PROBLEM_JSON, json(Ref::from_schema_name("Problem")))
        .build()
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use oncekey_api::path;

    use super::*;

    fn described() -> serde_json::Value {
        serde_json::to_value(document(Guards { clients: true, operators: true })).unwrap()
    }

    /// The constants of the module of paths, but for those of builds with failpoints.
    #[test]
    fn every_path_is_described() {
        let paths = Path::new(env!("CARGO_MANIFEST_DIR")).join("../api/src/path.rs");
        let source = fs::read_to_string(paths).unwrap();
        let described = described();
        let constants = source.lines().filter_map(|line| {
            let (_, path) = line.strip_prefix("pub const ")?.split_once(" = \"")?;
            path.strip_suffix("\";").filter(|path| !path.starts_with(path::FAILPOINTS))
        });
        let mut found = 0;
        for path in constants {
            let item = &described["paths"][path];
            assert!(item.is_object(), "{path} is missing in src/server/src/openapi/operations.rs");
            found += 1;
        }
        assert_eq!(found, described["paths"].as_object().unwrap().len());
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn references(value: &serde_json::Value, found: &mut BTreeSet<String>) {
            match value {
                serde_json::Value::Object(members) => {
                    for (name, member) in members {
                        match member.as_str() {
                            Some(target) if name == "$ref" => drop(found.insert(target.to_owned())),
                            _ => references(member, found),
                        }
                    }
                }
                serde_json::Value::Array(items) => {
                    items.iter().for_each(|item| references(item, found));
                }
                _ => {}
            }
        }
        let described = described();
        let mut found = BTreeSet::new();
        references(&described, &mut found);
        assert!(found.len() > 20, "{found:?}");
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(described.pointer(pointer).is_some(), "{reference}");
        }
    }

    #[test]
    fn whoever_may_be_told_to_show_a_credential_finds_in_the_description_how() {
        let described = described();
        let schemes = &described["components"]["securitySchemes"];
        for (path, item) in described["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let ways = operation["security"].as_array().unwrap();
                let told = operation["responses"].get("401").is_some();
                assert_eq!(!ways.is_empty(), told, "{method} {path}");
                for credential in ways.iter().flat_map(|way| way.as_object().unwrap().keys()) {
                    assert!(schemes[credential].is_object(), "{method} {path}: {credential}");
                }
            }
        }
    }

    #[test]
    fn every_code_is_told_of_some_operation_but_those_of_no_operation() {
        let described = described().to_string();
        for code in Code::ALL {
            let of_no_operation = matches!(code, Code::NotFound | Code::MethodNotAllowed);
            assert_eq!(described.contains(&format!("`{code}`")), !of_no_operation, "{code}");
        }
    }

    #[test]
    fn a_request_with_an_unknown_field_does_not_fit_its_schema() {
        let described = described();
        for request in OPERATIONS.iter().filter_map(|operation| operation.request) {
            let reference = serde_json::to_value(request.reference()).unwrap();
            let pointer = reference["$ref"].as_str().unwrap().strip_prefix('#').unwrap();
            let schema = described.pointer(pointer).unwrap();
            assert_eq!(schema["additionalProperties"], false, "{pointer}");
        }
    }
}
