//! What stands between two nodes on their connection.
//!
//! Guarantees: a node says who it is in its greeting, and when the [`Guard`] proved who the other
//! end is, the two must agree or the connection ends. Leaves out: proof itself; [`Unguarded`], the
//! default, proves nothing, and is for networks in which every host is trusted.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;
use oncekey_types::NodeId;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{ReadHalf, Stream, WriteHalf};

/// A connection behind its guard.
pub struct Guarded {
    /// What the two nodes go on with.
    pub stream: Box<dyn Stream>,
    /// The node at the other end, when it has proved which it is.
    pub node: Option<NodeId>,
}

/// Protects the connections between nodes, and tells which node is at the other end. A guard may
/// change what it demands at any time; connections that stand are left alone.
pub trait Guard: Send + Sync + 'static {
    /// Takes over a connection that this node has made.
    fn dialled(&self, stream: Box<dyn Stream>) -> BoxFuture<'_, io::Result<Guarded>>;

    /// Takes over a connection that was made to this node.
    fn accepted(&self, stream: Box<dyn Stream>) -> BoxFuture<'_, io::Result<Guarded>>;
}

/// Lets every connection pass as it is.
#[derive(Clone, Copy, Debug)]
pub struct Unguarded;

impl Guard for Unguarded {
    fn dialled(&self, stream: Box<dyn Stream>) -> BoxFuture<'_, io::Result<Guarded>> {
        Box::pin(async move { Ok(Guarded { stream, node: None }) })
    }

    fn accepted(&self, stream: Box<dyn Stream>) -> BoxFuture<'_, io::Result<Guarded>> {
        self.dialled(stream)
    }
}

/// A [`Stream`] of anything that is read and written, such as a connection inside another.
pub struct Layered<T>(pub T);

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for Layered<T> {
    fn into_halves(self: Box<Self>) -> (ReadHalf, WriteHalf) {
        let (read, write) = tokio::io::split(self.0);
        (Box::new(read), Box::new(write))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Layered<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Layered<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl<T> fmt::Debug for Layered<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Layered")
    }
}
