//! HTTP/1.1, as little of it as the benchmark needs, so that the load generator stays cheap.
//!
//! Guarantees: one request at a time over one connection that is kept; a reply is taken only when
//! all of it is there, and a reply of another form is an error. Leaves out: chunked bodies,
//! redirects, trailers; no node sends any of them.

use std::{io, net::SocketAddr, sync::Arc};

use oncekey_api::header;
use oncekey_client::http::{Carrier, Tls};
use oncekey_types::limits;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// The host of requests of which no node asks whom they are for.
pub(super) const HOST: &str = "oncekey";

/// Room for a usual reply, so that reading one does not grow the buffer.
const USUAL_REPLY_BYTES: usize = 4096;

/// Why there is no reply. Whether the request was carried out is unknown.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExchangeError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the connection ended before the reply did")]
    Closed,
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// Why bytes are not the reply to a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Malformed {
    #[error("not the status line of a reply over HTTP/1.1")]
    StatusLine,
    #[error("a reply without content-length")]
    Length,
    #[error("a reply over the limit of {} bytes", limits::REPLY_MAX_BYTES)]
    TooLarge,
    #[error("bytes after the reply that nothing asked for")]
    Excess,
}

/// A reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Reply<'a> {
    pub(super) status: u16,
    /// Public address of the node that leads the shard, if the reply says it.
    pub(super) leader: Option<&'a str>,
    pub(super) body: &'a [u8],
}

/// Writes a request into `out`, in place of what was there.
pub(super) fn write_request(
    out: &mut Vec<u8>,
    method: &str,
    path: &str,
    host: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) {
    out.clear();
    let length = body.len().to_string();
    let parts = [method, " ", path, " HTTP/1.1\r\nhost: ", host, "\r\ncontent-length: ", &length];
    parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
    for (name, value) in headers {
        let parts = ["\r\n", name, ": ", value];
        parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
    }
    out.extend_from_slice(b"\r\n\r\n");
    out.extend_from_slice(body);
}

/// Where a server is.
#[derive(Clone, Debug)]
pub(super) struct Address {
    pub(super) at: SocketAddr,
    /// Host and port, as the endpoint was given.
    pub(super) authority: Arc<str>,
    /// The name that its certificate must have and who vouches for it, when it is asked over TLS.
    pub(super) tls: Option<(Arc<str>, Tls)>,
}

impl From<SocketAddr> for Address {
    fn from(at: SocketAddr) -> Self {
        Self { at, authority: at.to_string().into(), tls: None }
    }
}

/// A connection that is kept.
pub(super) struct Connection {
    stream: Box<dyn Carrier>,
    received: Vec<u8>,
}

impl Connection {
    pub(super) async fn open(address: &Address) -> io::Result<Self> {
        let stream = TcpStream::connect(address.at).await?;
        // A request is one write; waiting for more only delays it.
        stream.set_nodelay(true)?;
        let stream: Box<dyn Carrier> = match &address.tls {
            None => Box::new(stream),
            Some((host, tls)) => Box::new(tls.connect(host, stream).await?),
        };
        Ok(Self { stream, received: Vec::with_capacity(USUAL_REPLY_BYTES) })
    }

    /// Sends `request` and waits for the reply. After an error the connection is of no more use.
    pub(super) async fn exchange(&mut self, request: &[u8]) -> Result<Reply<'_>, ExchangeError> {
        self.stream.write_all(request).await?;
        self.stream.flush().await?;
        self.received.clear();
        let head = loop {
            self.read().await?;
            if let Some(head) = Head::parse(&self.received)? {
                break (head.length, head.body);
            }
        };
        let (head, body) = head;
        let end = head + body;
        while self.received.len() < end {
            self.read().await?;
        }
        if self.received.len() > end {
            return Err(Malformed::Excess.into());
        }
        let (head, body) = self.received.split_at(head);
        let Some(Head { status, leader, .. }) = Head::parse(head)? else {
            return Err(Malformed::StatusLine.into());
        };
        Ok(Reply { status, leader, body })
    }

    async fn read(&mut self) -> Result<(), ExchangeError> {
        if self.stream.read_buf(&mut self.received).await? == 0 {
            return Err(ExchangeError::Closed);
        }
        if self.received.len() > limits::REPLY_MAX_BYTES {
            return Err(Malformed::TooLarge.into());
        }
        Ok(())
    }
}

/// Status line and headers of a reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Head<'a> {
    status: u16,
    leader: Option<&'a str>,
    /// Length of the head itself.
    length: usize,
    /// Length of the body.
    body: usize,
}

impl<'a> Head<'a> {
    /// The head of the reply that begins `bytes`; none when more has to arrive.
    fn parse(bytes: &'a [u8]) -> Result<Option<Self>, Malformed> {
        const END: &[u8] = b"\r\n\r\n";
        let Some(end) = bytes.windows(END.len()).position(|window| window == END) else {
            return Ok(None);
        };
        let head = std::str::from_utf8(&bytes[..end]).map_err(|_| Malformed::StatusLine)?;
        let mut lines = head.split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.strip_prefix("HTTP/1.1 "))
            .and_then(|rest| rest.split(' ').next())
            .and_then(|status| status.parse().ok())
            .ok_or(Malformed::StatusLine)?;
        let (mut body, mut leader) = (None, None);
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            if name.eq_ignore_ascii_case("content-length") {
                body = value.trim().parse().ok();
            } else if name.eq_ignore_ascii_case(header::LEADER) {
                leader = Some(value.trim());
            }
        }
        let body: usize = body.ok_or(Malformed::Length)?;
        if body > limits::REPLY_MAX_BYTES {
            return Err(Malformed::TooLarge);
        }
        Ok(Some(Self { status, leader, length: end + END.len(), body }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLY: &[u8] =
        b"HTTP/1.1 200 OK\r\nX: content-length: 9\r\nContent-Length: 5\r\nOncekey-Leader: a:1\r\n\r\nhello";

    #[test]
    fn a_head_is_found_only_once_it_is_whole() {
        let length = REPLY.len() - b"hello".len();
        for end in 0..length {
            assert_eq!(Head::parse(&REPLY[..end]), Ok(None), "{end} bytes");
        }
        let head = Head { status: 200, leader: Some("a:1"), length, body: 5 };
        for end in length..=REPLY.len() {
            assert_eq!(Head::parse(&REPLY[..end]), Ok(Some(head)), "{end} bytes");
        }
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        for (bytes, error) in [
            (&b"HTTP/2 200\r\ncontent-length: 0\r\n\r\n"[..], Malformed::StatusLine),
            (b"HTTP/1.1 \xff\r\n\r\n", Malformed::StatusLine),
            (b"HTTP/1.1 ok\r\ncontent-length: 0\r\n\r\n", Malformed::StatusLine),
            (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", Malformed::Length),
            (b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", Malformed::Length),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n", Malformed::TooLarge),
        ] {
            assert_eq!(Head::parse(bytes), Err(error), "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn a_request_is_written_whole_and_in_place_of_the_last() {
        let mut out = b"the last one".to_vec();
        write_request(&mut out, "POST", "/v1", "h:1", &[("a", "b")], b"{}");
        let expected = "POST /v1 HTTP/1.1\r\nhost: h:1\r\ncontent-length: 2\r\na: b\r\n\r\n{}";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[tokio::test]
    async fn a_reply_in_pieces_is_one_and_the_connection_is_kept() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            for _ in 0..2 {
                let mut request = [0; 3];
                stream.read_exact(&mut request).await.unwrap();
                for piece in REPLY.chunks(7) {
                    stream.write_all(piece).await.unwrap();
                    stream.flush().await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
        });
        let mut connection = Connection::open(&address.into()).await.unwrap();
        for _ in 0..2 {
            let reply = connection.exchange(b"ask").await.unwrap();
            assert_eq!(reply, Reply { status: 200, leader: Some("a:1"), body: b"hello" });
        }
        server.await.unwrap();
        let error = connection.exchange(b"ask").await.unwrap_err();
        assert!(matches!(error, ExchangeError::Closed | ExchangeError::Io(_)), "{error}");
    }
}
