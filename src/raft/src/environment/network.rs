//! How nodes and clients are connected.
//!
//! Guarantees: a [`Stream`] has the meaning of a TCP connection, whatever carries it: bytes arrive
//! in order, once or not at all. Leaves out: names; an address is resolved by whoever connects.

use std::{io, net::SocketAddr};

use futures_util::future::BoxFuture;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};

/// Makes and takes connections.
pub trait Network: Send + Sync + 'static {
    /// Listens on `address`; port 0 stands for any that is free.
    fn bind(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>>;

    /// Connects to `address`, as `host:port`.
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Stream>>>;
}

/// A connection and where it comes from.
pub type Accepted = (Box<dyn Stream>, SocketAddr);

/// Takes connections until dropped.
pub trait Listener: Send + Sync + 'static {
    /// Where it listens.
    ///
    /// # Errors
    ///
    /// Any error of the system.
    fn local_addr(&self) -> io::Result<SocketAddr>;

    /// The next connection. May be dropped and asked again without losing one.
    fn accept(&self) -> BoxFuture<'_, io::Result<Accepted>>;
}

/// The half of a connection that is read.
pub type ReadHalf = Box<dyn AsyncRead + Send + Unpin>;
/// The half of a connection that is written.
pub type WriteHalf = Box<dyn AsyncWrite + Send + Unpin>;

/// A connection. What is written leaves at once.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// Its two halves, which do not wait for each other.
    fn into_halves(self: Box<Self>) -> (ReadHalf, WriteHalf);
}

/// TCP of the operating system.
#[derive(Clone, Copy, Debug)]
pub struct Tcp;

impl Network for Tcp {
    fn bind(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let listener = TcpListener::bind(address).await?;
            Ok(Box::new(listener) as Box<dyn Listener>)
        })
    }

    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async move { Ok(at_once(TcpStream::connect(address).await?)) })
    }
}

impl Listener for TcpListener {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        TcpListener::local_addr(self)
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<Accepted>> {
        Box::pin(async move {
            let (stream, from) = TcpListener::accept(self).await?;
            Ok((at_once(stream), from))
        })
    }
}

/// Frames and replies are complete; waiting for more only delays them.
fn at_once(stream: TcpStream) -> Box<dyn Stream> {
    let _ = stream.set_nodelay(true);
    Box::new(stream)
}

impl Stream for TcpStream {
    fn into_halves(self: Box<Self>) -> (ReadHalf, WriteHalf) {
        let (read, write) = self.into_split();
        (Box::new(read), Box::new(write))
    }
}
