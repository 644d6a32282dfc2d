//! What a node takes from the internet: connections and uploads.

use std::{cell::LazyCell, net::Ipv4Addr, time::Duration};

use oncekey_server::{config::ForwardedHeader, fuzzing};
use oncekey_store::{
    codec::message,
    command::{Command, PutDeviceList},
};
use oncekey_types::DeviceId;
use tokio::runtime::{Builder, Runtime};

use crate::{
    Target, choose, chosen,
    examples::{self, DEVICE, NOW, bob},
    take,
};

/// A connection: request lines, headers, targets, pipelining.
pub const CONNECTION: Target =
    Target { name: "connection", run: connection, seeds: connections, claim_bytes: 0 };

/// Uploads with every check of keys and signatures.
pub const UPLOAD: Target = Target { name: "upload", run: upload, seeds: uploads, claim_bytes: 0 };

/// Fields of a request's head that others than clients write: where it comes from, its trace.
pub const HEADER_FIELD: Target =
    Target { name: "header_field", run: header_field, seeds: header_fields, claim_bytes: 0 };

// Time passes only while nothing else happens: whoever waits for bytes is answered at once.
thread_local! {
    static RUNTIME: LazyCell<Runtime> = const {
        LazyCell::new(|| {
            Builder::new_current_thread().enable_time().start_paused(true).build().expect("no limit is reached")
        })
    };
}

/// Whatever comes, the answer is HTTP, and a target that is understood names the same when it is
/// written anew.
fn connection(data: &[u8]) {
    let reply = exchange(data);
    if reply.is_empty() {
        return;
    }
    let reply = String::from_utf8(reply).expect("a reply is text");
    let status = reply.strip_prefix("HTTP/1.1 ").or_else(|| reply.strip_prefix("HTTP/1.0 "));
    let status = status.and_then(|rest| rest.get(..3)).expect("a reply has a status");
    if status == "200" {
        take();
    }
    if status != "200" || !data.starts_with(b"GET ") {
        return;
    }
    let Some((_, target)) = reply.split_once("\r\n\r\n") else { return };
    // More than one request was sent, or the target carries a key.
    if target.contains("HTTP/1.") || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return;
    }
    let again = exchange(format!("GET {target} HTTP/1.1\r\n\r\n").as_bytes());
    let again = String::from_utf8(again).expect("a reply is text");
    let body = again.split_once("\r\n\r\n").map(|(_, body)| body);
    assert_eq!(body, Some(target), "the target does not name the same when it is written anew");
}

fn exchange(bytes: &[u8]) -> Vec<u8> {
    let patience = Duration::from_secs(10);
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let reply = tokio::time::timeout(patience, fuzzing::connection(bytes)).await;
            reply.expect("a node ends a connection that is silent").unwrap_or_default()
        })
    })
}

fn connections() -> Vec<Vec<u8>> {
    [
        "GET /v1/users/bob HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /v1/users/%E2%82%AC%2E/devices/4294967295/prekeys HTTP/1.1\r\nhost: a\r\n\r\n",
        "DELETE /v1/users/bob/devices/1?seq=7 HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /v1/events?user=bob&device=1 HTTP/1.1\r\nhost: a\r\n\r\n",
        "POST /v1/users/bob/bundles HTTP/1.1\r\nhost: a\r\nidempotency-key: k\r\ncontent-type: \
         application/json\r\ncontent-length: 2\r\n\r\n{}",
        "PUT /v1/users/bob/devices/1 HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\n\
         {}\r\n0\r\n\r\nGET /v1/users/x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}

type Field = fn(&[u8]);

const FIELDS: &[Field] = &[
    |value| forwarded(ForwardedHeader::XForwardedFor, "203.0.113.9", value),
    |value| forwarded(ForwardedHeader::Forwarded, "for=203.0.113.9", value),
    |value| {
        let Ok(value) = std::str::from_utf8(value) else { return };
        let Some((trace, span, asked)) = fuzzing::traceparent(value) else { return };
        take();
        let again = format!("00-{trace:032x}-{span:016x}-{:02x}", u8::from(asked));
        assert_eq!(fuzzing::traceparent(&again), Some((trace, span, asked)));
    },
];

fn header_field(data: &[u8]) {
    if let Some((field, value)) = choose(FIELDS, data) {
        field(value);
    }
}

/// Whatever a client says of where it comes from, it is where the proxy that we trust says.
fn forwarded(header: ForwardedHeader, seen: &str, said: &[u8]) {
    let client = Some(Ipv4Addr::new(203, 0, 113, 9).into());
    let added = [said, b", ", seen.as_bytes()].concat();
    let in_one = fuzzing::client(header, &[&added]);
    let in_two = fuzzing::client(header, &[said, seen.as_bytes()]);
    if in_one.is_some() {
        take();
        assert_eq!((in_one, in_two), (client, client), "a client has chosen its address");
    }
}

fn header_fields() -> Vec<Vec<u8>> {
    [
        (0, "198.51.100.7, 10.1.2.3"),
        (1, "for=\"[2001:db8::1]:4711\";proto=https, for=10.1.2.3"),
        (2, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ]
    .map(|(field, value)| chosen(field, value.as_bytes()))
    .into()
}

/// Parses and checks an upload; what passes becomes a command.
type Check = fn(&[u8]) -> Option<Command>;

const UPLOADS: &[Check] = &[
    |body| {
        fuzzing::register(&bob(), DeviceId(1), body, NOW.to_seconds()).ok().map(Command::Register)
    },
    |body| {
        let keys =
            fuzzing::one_time_prekeys(DEVICE.address(), DEVICE.identity().public(), body).ok()?;
        take();
        assert!(keys.is_sorted_by(|a, b| a.id < b.id), "ids that do not grow were taken");
        None
    },
    |body| {
        let list = fuzzing::device_list(&bob(), body).ok()?;
        Some(Command::PutDeviceList(PutDeviceList { user: bob(), list }))
    },
];

/// What passes every check fits the formats behind it.
fn upload(data: &[u8]) {
    let Some((check, body)) = choose(UPLOADS, data) else { return };
    if let Some(command) = check(body) {
        take();
        let bytes = message::encode_command(&command).expect("it is inside the limits");
        assert_eq!(message::decode_command(&bytes).ok(), Some(command));
    }
}

fn uploads() -> Vec<Vec<u8>> {
    let list = examples::device_list().to_wire();
    let list = serde_json::to_vec(&list).expect("it is JSON");
    let (register, more) = (examples::register(), examples::replenish());
    vec![chosen(0, &register), chosen(1, &more), chosen(2, &list)]
}
