//! A server that does nothing: what HTTP alone costs on this machine.
//!
//! Guarantees: the same stack as a node's (axum, one runtime of the same kind), in a process of its
//! own that ends with the benchmark. Leaves out: any work; the request is read and 200 bytes are
//! sent.

use std::{net::SocketAddr, process::Stdio};

use anyhow::{Context, Result};
use axum::{Router, body::Bytes, serve::ListenerExt as _};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpListener,
    process::{Child, Command},
};

use crate::{args::BenchNoop, output, runtime, serve};

/// As many bytes as a short bundle has.
const BODY: &[u8] = &[b' '; 200];

/// `oncekey bench-noop`: prints its address and serves until it is killed.
pub(crate) fn serve(arguments: &BenchNoop) -> Result<()> {
    serve::die_with(arguments.parent)?;
    runtime()?.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        output::line(listener.local_addr()?);
        let listener = listener.tap_io(|stream| {
            // As the nodes do.
            let _ = stream.set_nodelay(true);
        });
        let router: Router = Router::new().fallback(async |_: Bytes| BODY);
        axum::serve(listener, router).await.context("the no-op server ended")
    })
}

/// The server as a child process.
pub(super) struct Noop {
    pub(super) address: SocketAddr,
    child: Child,
}

impl Noop {
    pub(super) async fn start() -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["bench-noop", "--parent", &std::process::id().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("the no-op server cannot be started")?;
        let stdout = child.stdout.take().context("the no-op server has no output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).await?;
        let address = line.trim().parse().context("the no-op server gave no address")?;
        Ok(Self { address, child })
    }

    /// The process id, while it runs.
    pub(super) fn process_id(&self) -> Option<u32> {
        self.child.id()
    }
}
