//! Bytes that are hardly HTTP.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, bail};
use oncekey_api::path;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::Good;

/// A name, bytes, and the statuses that are right; none is a connection closed without a word.
type Case = (&'static str, Vec<u8>, &'static [Option<u16>]);

/// All cases.
pub(crate) fn cases(good: &Good) -> Vec<Case> {
    const BAD: &[Option<u16>] = &[Some(400), None];
    let target = path::user_bundles(&good.user);
    let post = |headers: &str, body: &str| {
        format!(
            "POST {target} HTTP/1.1\r\nhost: x\r\nidempotency-key: raw\r\n\
             content-type: application/json\r\n{headers}\r\n{body}"
        )
        .into_bytes()
    };
    let long = format!("x-long: {}\r\n", "a".repeat(200_000));
    let many = "x-many: 1\r\n".repeat(1_000);
    vec![
        ("noise", vec![0xde, 0xad, 0xbe, 0xef, b'\n', b'\r', b'\n'], BAD),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), BAD),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), &[Some(400), Some(505), None]),
        ("a zero byte in the path", b"GET /v1/\0 HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(), BAD),
        (
            "a head without an end",
            b"GET /v1/users/bob HTTP/1.1\r\nhost:".to_vec(),
            &[Some(408), None],
        ),
        ("a head too large", post(&long, ""), &[Some(431), None]),
        ("too many headers", post(&many, ""), &[Some(431), None]),
        ("a length that is no number", post("content-length: ten\r\n", "{}"), BAD),
        ("two lengths", post("content-length: 2\r\ncontent-length: 3\r\n", "{}"), BAD),
        ("a body that does not come", post("content-length: 2\r\n", "{"), &[Some(408)]),
        (
            "a chunk that is no chunk",
            post("transfer-encoding: chunked\r\n", "zz\r\n{}\r\n0\r\n\r\n"),
            BAD,
        ),
        (
            "a chunk too large",
            post("transfer-encoding: chunked\r\n", "ffffffffffffffffff\r\n{}"),
            BAD,
        ),
        ("a coding nobody has", post("transfer-encoding: gzip, identity\r\n", "{}"), BAD),
    ]
}

/// Sends `bytes` and reads the status of the reply; none when the connection is closed first.
pub(crate) async fn send(address: SocketAddr, bytes: &[u8]) -> Result<Option<u16>> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        // A node that has seen enough may close before all is sent.
        let _ = stream.write_all(bytes).await;
        let mut reply = Vec::new();
        let _ = stream.read_to_end(&mut reply).await;
        let Some(line) = reply.split(|byte| *byte == b'\r').next().filter(|l| !l.is_empty()) else {
            return Ok(None);
        };
        let line = String::from_utf8_lossy(line);
        match line.split(' ').nth(1).map(str::parse) {
            Some(Ok(status)) => Ok(Some(status)),
            _ => bail!("not a reply: {line:?}"),
        }
    };
    let limit = Duration::from_secs(20);
    tokio::time::timeout(limit, exchange).await.context("the node neither answers nor closes")?
}
