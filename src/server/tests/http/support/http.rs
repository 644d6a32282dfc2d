//! A client that sends exactly what it is told.

use std::{collections::BTreeMap, fmt, net::SocketAddr};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// A request as it goes over the wire.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) method: &'static str,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn new(method: &'static str, target: impl Into<String>) -> Self {
        Self { method, target: target.into(), headers: Vec::new(), body: Vec::new() }
    }

    pub(crate) fn get(target: impl Into<String>) -> Self {
        Self::new("GET", target)
    }

    /// A request with a JSON body.
    pub(crate) fn json(method: &'static str, target: impl Into<String>, body: &Value) -> Self {
        Self::new(method, target).body(body.to_string())
    }

    /// A fetch under the idempotency key `key`.
    pub(crate) fn fetch(target: impl Into<String>, key: &str, body: &Value) -> Self {
        Self::json("POST", target, body).header("Idempotency-Key", key)
    }

    /// Sets a body that is declared as JSON, whatever it is.
    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self.header("Content-Type", "application/json")
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Changes the JSON body.
    pub(crate) fn edit(mut self, change: impl FnOnce(&mut Value)) -> Self {
        let mut body = serde_json::from_slice(&self.body).unwrap();
        change(&mut body);
        self.body = body.to_string().into_bytes();
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self
    }

    /// Request line and headers, complete.
    pub(crate) fn head(&self) -> String {
        let mut head = format!("{} {} HTTP/1.1\r\nHost: test\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !self.body.is_empty() {
            head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        head + "Connection: close\r\n\r\n"
    }
}

impl fmt::Debug for Request {
    /// Request line, headers and the first part of the body.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body: String = self.text().chars().take(200).collect();
        write!(f, "{:?} {body:?}", self.head())
    }
}

/// A reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The code of a problem document, after a look at its form.
    pub(crate) fn problem_code(&self) -> String {
        let body = self.json();
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        assert_eq!(body["status"], self.status, "{self:?}");
        assert!(body["title"].is_string() && body["detail"].is_string(), "{self:?}");
        body["code"].as_str().unwrap().to_owned()
    }

    /// Parses what came over the wire, to its end.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n")?;
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            // Changes from second to second.
            .filter(|(name, _)| name != "date")
            .collect();
        Some(Self { status, headers, body: body.to_owned() })
    }
}

/// Sends `request` on a connection of its own.
pub(crate) async fn send(to: SocketAddr, request: Request) -> Reply {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(request.head().as_bytes()).await.unwrap();
    // A server that has refused the head may close while the body is under way.
    let _ = stream.write_all(&request.body).await;
    read_reply(&mut stream).await.unwrap_or_else(|| panic!("no reply to {request:?}"))
}

/// Reads to the end of the stream; none when it ended without a reply.
pub(crate) async fn read_reply(stream: &mut TcpStream) -> Option<Reply> {
    let mut bytes = Vec::new();
    // A reset after the reply leaves what was read before.
    let _ = stream.read_to_end(&mut bytes).await;
    Reply::parse(&bytes)
}
