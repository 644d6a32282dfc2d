//! What other nodes ask of this one.
//!
//! Guarantees: a peer of another cluster, or one whose disk was lost, is turned away before it can
//! ask anything; what a request says was written is noted before any of it is handled; requests of one
//! connection start in the order they came, so that appends of one shard enter its Raft core in order.
//! Leaves out: what the answers are, see [`Service`].

use std::{future::Future, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt, SinkExt, StreamExt};
use oncekey_types::NodeId;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
};

use super::{
    link::{FrameReader, FrameWriter, split, write_frames},
    wire::{self, Envelope, Hello, HelloReply, NOBODY, Protocols, Request, Response},
};
use crate::{
    config::Member,
    environment::{Guard, Guarded, Listener, Stream},
    error::{Fault, FaultSink},
    identity::{Identity, MeetError, Progress},
    seldom::Seldom,
};

/// Time in which a new connection must greet.
const GREETING_TIMEOUT: Duration = Duration::from_secs(2);
/// Connections that may be about to greet at the same time; more wait.
const GREETINGS_MAX: usize = 256;
/// Responses that may wait to be written on one connection.
const WRITE_QUEUE_MAX: usize = 4096;

/// Answers the requests of other nodes.
pub(crate) trait Service: Send + Sync + 'static {
    /// Whether this node and `other` could form a cluster; if not, why.
    fn could_found_with(&self, other: NodeId) -> Result<(), String>;

    /// A node introduced itself with its address.
    fn met(&self, node: NodeId, member: &Member);

    /// Answers `request` of `from`. What happens before the first suspension happens in the order
    /// in which the requests came.
    fn answer(
        self: Arc<Self>,
        from: NodeId,
        request: Request,
    ) -> Pin<Box<dyn Future<Output = Response> + Send>>;
}

/// The listener for other nodes. Ends, with all its connections, when dropped.
pub(crate) struct Inbound {
    address: SocketAddr,
    _accepting: JoinSet<()>,
}

impl Inbound {
    /// Answers on `listener` until dropped.
    pub(crate) fn start(
        listener: Box<dyn Listener>,
        address: SocketAddr,
        greeter: Greeter,
        service: Arc<impl Service>,
    ) -> Self {
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, greeter, service));
        Self { address, _accepting: accepting }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn accept(listener: Box<dyn Listener>, greeter: Greeter, service: Arc<impl Service>) {
    let greeter = Arc::new(greeter);
    let places = Arc::new(Semaphore::new(GREETINGS_MAX));
    let mut connections = JoinSet::new();
    loop {
        // The semaphore is never closed.
        let place = Arc::clone(&places).acquire_owned().await.ok();
        match listener.accept().await {
            Ok((stream, from)) => {
                let (greeter, service) = (Arc::clone(&greeter), Arc::clone(&service));
                connections.spawn(async move {
                    if let Err(reason) = serve(stream, place, &greeter, service).await {
                        tracing::debug!(%from, reason, "a peer was turned away");
                    }
                });
                while connections.try_join_next().is_some() {}
            }
            Err(error) => {
                // Out of file descriptors, most likely: let some close.
                tracing::warn!(%error, "cannot accept a peer");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(
    stream: Box<dyn Stream>,
    place: Option<OwnedSemaphorePermit>,
    greeter: &Greeter,
    service: Arc<impl Service>,
) -> Result<(), String> {
    let greeting = tokio::time::timeout(GREETING_TIMEOUT, greeter.greet(stream, &*service)).await;
    let greeted = greeting.map_err(|_| "did not greet in time".to_owned())??;
    drop(place);
    let Some(Greeted { node, member, protocol, progress, mut reader, writer }) = greeted else {
        return Ok(());
    };
    service.met(node, &member);

    let (responses, queue) = mpsc::channel(WRITE_QUEUE_MAX);
    let mut tasks = JoinSet::new();
    tasks.spawn(write_frames(writer, queue));
    while let Some(frame) = reader.next().await {
        let frame = frame.map_err(|error| error.to_string())?;
        let (Envelope { id, body }, written) =
            wire::decode_telling(protocol, &frame).map_err(|error| error.to_string())?;
        if let Some(written) = written {
            greeter.identity.heard(node, Progress { written, ..progress });
        }
        let answer = Arc::clone(&service).answer(node, body);
        let identity = Arc::clone(&greeter.identity);
        let mut answering = Box::pin(respond(protocol, id, answer, identity, responses.clone()));
        // Polled once here: what must be in order happens before the first suspension.
        if answering.as_mut().now_or_never().is_none() {
            tasks.spawn(answering);
        }
        while tasks.try_join_next().is_some() {}
    }
    Ok(())
}

async fn respond(
    protocol: u32,
    id: u64,
    answer: Pin<Box<dyn Future<Output = Response> + Send>>,
    identity: Arc<Identity>,
    responses: mpsc::Sender<Bytes>,
) {
    let body = answer.await;
    // Read after what is answered was written, so an acknowledgement covers itself.
    let written = identity.progress().written;
    match wire::encode_telling(protocol, &Envelope { id, body }, written) {
        // A connection that has ended needs no answer.
        Ok(frame) => drop(responses.send(frame).await),
        Err(error) => tracing::error!(%error, "an answer to a peer cannot be encoded"),
    }
}

/// A peer that was let in.
struct Greeted {
    node: NodeId,
    member: Member,
    /// The version that both speak.
    protocol: u32,
    /// How much it had written when it greeted.
    progress: Progress,
    reader: FrameReader,
    writer: FrameWriter,
}

/// Who this node is, and whom it lets in.
pub(crate) struct Greeter {
    identity: Arc<Identity>,
    me: Member,
    protocols: Protocols,
    guard: Arc<dyn Guard>,
    faults: FaultSink,
    distrusted: Seldom,
}

impl Greeter {
    pub(crate) fn new(
        identity: Arc<Identity>,
        (me, protocols): (Member, Protocols),
        guard: Arc<dyn Guard>,
        faults: FaultSink,
    ) -> Self {
        Self { identity, me, protocols, guard, faults, distrusted: Seldom::default() }
    }

    /// Nothing comes of a peer that only asked.
    async fn greet(
        &self,
        stream: Box<dyn Stream>,
        service: &impl Service,
    ) -> Result<Option<Greeted>, String> {
        let guarded = self.guard.accepted(stream).await;
        let Guarded { stream, node: proved } = guarded.map_err(|error| error.to_string())?;
        let (mut reader, mut writer) = split(stream);
        let frame = match reader.next().await {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Err(error.to_string()),
            None => return Err("closed before greeting".to_owned()),
        };
        let theirs = wire::protocols_of(&frame).map_err(|error| error.to_string())?;
        let Some(protocol) = self.protocols.agree(theirs) else {
            let (me, mine) = (self.identity.node(), self.protocols);
            let reason = format!(
                "node {me} speaks version {mine} of the peer protocol and not {theirs}: upgrade one \
                 version at a time"
            );
            tracing::warn!(reason, "a node was turned away");
            let refused = HelloReply::Refused { reason: reason.clone() };
            let frame = wire::encode(&refused).map_err(|error| error.to_string())?;
            writer.send(frame).await.map_err(|error| error.to_string())?;
            return Err(reason);
        };
        let hello: Hello = wire::decode(&frame).map_err(|error| error.to_string())?;
        let node = NodeId(hello.node);
        let progress = hello.progress;
        let only_asks = hello.to == Some(NOBODY);
        let (reply, result) = match self.check(&hello, proved, service) {
            Ok(()) => (
                HelloReply::Welcome {
                    protocol,
                    node: self.identity.node().0,
                    incarnation: self.identity.incarnation(),
                    progress: self.identity.progress(),
                    member: self.me.clone(),
                },
                Ok(hello.member),
            ),
            Err(reply) => {
                let reason = format!("{reply:?}");
                (reply, Err(reason))
            }
        };
        let frame = wire::encode(&reply).map_err(|error| error.to_string())?;
        writer.send(frame).await.map_err(|error| error.to_string())?;
        let member = result?;
        let greeted = Greeted { node, member, protocol, progress, reader, writer };
        Ok((!only_asks).then_some(greeted))
    }

    fn check(
        &self,
        hello: &Hello,
        proved: Option<NodeId>,
        service: &impl Service,
    ) -> Result<(), HelloReply> {
        let refuse = |reason: String| Err(HelloReply::Refused { reason });
        let me = self.identity.node().0;
        if hello.cluster != self.identity.cluster() {
            return refuse(format!("node {me} belongs to another cluster"));
        }
        if let Some(proved) = proved.filter(|proved| proved.0 != hello.node) {
            if self.distrusted.is_due() {
                tracing::warn!(
                    says = hello.node,
                    certificate = %proved,
                    "a node with the certificate of another was turned away"
                );
            }
            return refuse(format!(
                "the certificate is that of node {proved}, not of node {}",
                hello.node
            ));
        }
        if hello.shards != self.identity.shards() {
            return refuse(format!("node {me} has {} shards", self.identity.shards()));
        }
        if hello.to.is_some_and(|to| to != me && to != NOBODY) {
            return refuse(format!("this is node {me}"));
        }
        if hello.node == me {
            return refuse(format!("node id {me} is taken by the node that answers"));
        }
        if hello.to == Some(NOBODY) {
            return service.could_found_with(NodeId(hello.node)).or_else(refuse);
        }
        match self.identity.meet(NodeId(hello.node), hello.incarnation, hello.progress) {
            Ok(()) => Ok(()),
            Err(MeetError::OtherIncarnation(error)) => {
                tracing::warn!(%error, "a node was turned away");
                Err(HelloReply::OtherIncarnation)
            }
            Err(MeetError::Removed(error)) => {
                tracing::info!(%error, "a node was turned away");
                Err(HelloReply::Removed)
            }
            Err(MeetError::WentBack(error)) => {
                tracing::warn!(%error, "a node was turned away");
                Err(HelloReply::WentBack)
            }
            Err(MeetError::Write(error)) => {
                self.faults.raise(&Fault::new(format!("the identity cannot be written: {error}")));
                refuse(format!("node {me} stops"))
            }
        }
    }
}
