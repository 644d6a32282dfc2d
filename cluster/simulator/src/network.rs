//! The simulated network, as nodes and clients see it.
//!
//! Guarantees: every byte that is written is in the [`Trace`]. Leaves out: which messages arrive,
//! and when, which is turmoil's part; a segment that is lost is never sent again, so the connection
//! stands still until somebody gives it up.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use oncekey_client::http::{Carrier, Dial, Dialing};
use oncekey_raft::environment::{Accepted, Listener, Network, ReadHalf, Stream, WriteHalf};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream, tcp};

use crate::trace::Trace;

/// Connects hosts of the simulation.
#[derive(Clone, Debug)]
pub(crate) struct SimNetwork {
    pub(crate) trace: Trace,
}

impl SimNetwork {
    async fn open(self, address: String) -> io::Result<Written<TcpStream>> {
        let stream = TcpStream::connect(address).await?;
        self.wrap(stream)
    }

    fn wrap(&self, stream: TcpStream) -> io::Result<Written<TcpStream>> {
        let name = name(stream.local_addr()?, stream.peer_addr()?);
        Ok(Written { inner: stream, name, trace: self.trace.clone() })
    }
}

impl Network for SimNetwork {
    fn bind(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let listener = TcpListener::bind(address).await?;
            Ok(Box::new(SimListener { listener, network: self.clone() }) as Box<dyn Listener>)
        })
    }

    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let stream = self.clone().open(address.to_owned()).await?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}

impl Dial for SimNetwork {
    fn dial(&self, address: &str) -> Dialing {
        let (network, address) = (self.clone(), address.to_owned());
        Box::pin(async move { Ok(Box::new(network.open(address).await?) as Box<dyn Carrier>) })
    }
}

struct SimListener {
    listener: TcpListener,
    network: SimNetwork,
}

impl Listener for SimListener {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<Accepted>> {
        Box::pin(async move {
            let (stream, from) = self.listener.accept().await?;
            Ok((Box::new(self.network.wrap(stream)?) as Box<dyn Stream>, from))
        })
    }
}

/// A connection, or the half of one, whose writes are traced.
struct Written<T> {
    inner: T,
    name: u64,
    trace: Trace,
}

/// Tells connections apart.
fn name(local: SocketAddr, remote: SocketAddr) -> u64 {
    let host = |address: SocketAddr| match address {
        SocketAddr::V4(address) => u64::from(address.ip().octets()[3]),
        SocketAddr::V6(address) => u64::from(address.ip().octets()[15]),
    };
    (host(local) << 48)
        | (host(remote) << 32)
        | (u64::from(local.port()) << 16)
        | u64::from(remote.port())
}

impl Stream for Written<TcpStream> {
    fn into_halves(self: Box<Self>) -> (ReadHalf, WriteHalf) {
        let Self { inner, name, trace } = *self;
        let (read, write) = inner.into_split();
        (Box::new(read), Box::new(Written::<tcp::OwnedWriteHalf> { inner: write, name, trace }))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Written<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Written<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        if let Poll::Ready(Ok(length)) = written {
            let at = turmoil::sim_elapsed().unwrap_or(Duration::ZERO);
            self.trace.add(at, self.name, &bytes[..length]);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
