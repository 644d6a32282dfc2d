//! An HTTP/1.1 client that costs next to nothing: one connection, one request at a time.
//!
//! Reads answers with a `content-length`, as the fronts send them. Leaves out everything else.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, bail, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{front, pool::Turn};

/// The longest answer that is read.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// A connection to a front.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects to a port on loopback.
    pub(crate) async fn open(port: u16) -> Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(4 * 1024) })
    }

    /// Asks for a pop and returns the key's id, if the answer has one.
    pub(crate) async fn pop(&mut self, turn: Turn) -> Result<Option<u64>> {
        let request = format!(
            "POST /pop/{} HTTP/1.1\r\nhost: peers\r\n{}: {:016x}\r\ncontent-length: 0\r\n\r\n",
            turn.user,
            front::IDEMPOTENCY_KEY,
            turn.request
        );
        self.stream.write_all(request.as_bytes()).await?;
        self.buffer.clear();
        let body = loop {
            if let Some(body) = body(&self.buffer)? {
                break body;
            }
            ensure!(self.buffer.len() < ANSWER_BYTES_MAX, "the answer is too long");
            ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "the front hung up");
        };
        id(std::str::from_utf8(&self.buffer[body..])?)
    }
}

/// Where the body starts, once the answer is complete.
fn body(answer: &[u8]) -> Result<Option<usize>> {
    const END: &[u8] = b"\r\n\r\n";
    let Some(head) = answer.windows(END.len()).position(|window| window == END) else {
        return Ok(None);
    };
    let body = head + END.len();
    let head = std::str::from_utf8(&answer[..head])?;
    if !head.starts_with("HTTP/1.1 200 ") {
        bail!("the front answered {:?}", head.lines().next().unwrap_or_default());
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.context("an answer without a length")?.parse()?;
    Ok((answer.len() >= body + length).then_some(body))
}

fn id(body: &str) -> Result<Option<u64>> {
    let Some((_, rest)) = body.split_once(front::ID_MARK) else {
        return Ok(None);
    };
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    Ok(Some(rest[..end].parse()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_complete_with_its_last_byte() -> Result<()> {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nab";
        for end in 0..answer.len() {
            assert_eq!(body(&answer[..end])?, None, "after {end} bytes");
        }
        assert_eq!(body(answer)?, Some(answer.len() - 2));
        Ok(())
    }

    #[test]
    fn a_refusal_is_an_error() {
        assert!(body(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").is_err());
    }

    #[test]
    fn the_id_of_the_one_time_key_is_found() -> Result<()> {
        assert_eq!(id("{\"one_time_prekey\":{\"id\":15,\"x\":1}}")?, Some(15));
        assert_eq!(id("xxx")?, None);
        Ok(())
    }
}
