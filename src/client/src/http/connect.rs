//! How connections are made.
//!
//! Guarantees: a call knows nothing of what carries it, and one to an `https` endpoint goes over TLS
//! or not at all. Leaves out: TLS over a [`Dial`], which brings its own.

use std::{
    error::Error,
    fmt,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

#[cfg(feature = "tls")]
use hyper::http::uri::Scheme;
use hyper::{
    Uri,
    rt::{Read, ReadBufCursor, Write},
};
use hyper_util::{
    client::legacy::connect::{Connected, Connection, HttpConnector},
    rt::TokioIo,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tower_service::Service;

#[cfg(feature = "tls")]
use super::Tls;

/// A connection to a node.
pub trait Carrier: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Carrier for T {}

/// A connection that is being made.
pub type Dialing = Pin<Box<dyn Future<Output = io::Result<Box<dyn Carrier>>> + Send>>;

/// Makes connections to nodes.
pub trait Dial: Send + Sync + 'static {
    /// Connects to the node at `address`, as `host:port`.
    fn dial(&self, address: &str) -> Dialing;
}

/// Makes the connections of a hyper client to nodes: over TCP, with TLS for `https`. For operators'
/// tools; a device has [`AnyNode`](super::AnyNode).
#[derive(Clone)]
pub struct Connector(Means);

#[derive(Clone)]
enum Means {
    Tcp {
        http: HttpConnector,
        #[cfg(feature = "tls")]
        tls: Tls,
    },
    Other(Arc<dyn Dial>),
}

impl Connector {
    /// Over `https` trusts the authorities that browsers trust.
    #[must_use]
    pub fn new() -> Self {
        Self(Means::Tcp {
            http: tcp(),
            #[cfg(feature = "tls")]
            tls: Tls::public(),
        })
    }

    /// Over `https` trusts whom `tls` trusts.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn with_tls(tls: Tls) -> Self {
        Self(Means::Tcp { http: tcp(), tls })
    }

    pub(super) fn with_dial(dial: Arc<dyn Dial>) -> Self {
        Self(Means::Other(dial))
    }
}

impl Default for Connector {
    fn default() -> Self {
        Self::new()
    }
}

fn tcp() -> HttpConnector {
    let mut http = HttpConnector::new();
    http.set_nodelay(true);
    http.enforce_http(false);
    http
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Means::Tcp { .. } => "Tcp",
            Means::Other(_) => "Other",
        })
    }
}

type BoxError = Box<dyn Error + Send + Sync>;

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match &mut self.0 {
            Means::Tcp { http, .. } => Poll::Ready(Ok(ready!(http.poll_ready(cx))?)),
            Means::Other(_) => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        match &mut self.0 {
            #[cfg(feature = "tls")]
            Means::Tcp { http, tls } if uri.scheme() == Some(&Scheme::HTTPS) => {
                let (host, tls) = (uri.host().unwrap_or_default().to_owned(), tls.clone());
                let connecting = http.call(uri);
                Box::pin(async move {
                    let stream = tls.connect(&host, connecting.await?.into_inner()).await?;
                    Ok(Stream(Box::new(TokioIo::new(stream))))
                })
            }
            Means::Tcp { http, .. } => {
                let connecting = http.call(uri);
                Box::pin(async move { Ok(Stream(Box::new(connecting.await?))) })
            }
            Means::Other(dial) => {
                let dialing = dial.dial(uri.authority().map_or("", |authority| authority.as_str()));
                Box::pin(async move { Ok(Stream(Box::new(TokioIo::new(dialing.await?)))) })
            }
        }
    }
}

/// A connection as hyper sees it.
pub struct Stream(Box<dyn Io>);

trait Io: Read + Write + Send + Unpin {}

impl<T: Read + Write + Send + Unpin> Io for T {}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_read(cx, buffer)
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write_vectored(cx, slices)
    }
}
