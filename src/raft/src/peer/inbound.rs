//! What other nodes ask of this one.
//!
//! Guarantees: a peer of another cluster, or one whose disk was lost, is turned away before it can
//! ask anything; requests of one connection start in the order they came, so that appends of one
//! shard enter its Raft core in order. Leaves out: what the answers are, see [`Service`].

use std::{future::Future, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt, SinkExt, StreamExt};
use oncekey_types::NodeId;
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    link::{FrameReader, FrameWriter, split, write_frames},
    wire::{self, Envelope, Hello, HelloReply, Protocols, Request, Response},
};
use crate::{
    config::Member,
    environment::{Listener, Stream},
    error::{Fault, FaultSink},
    identity::{Identity, MeetError},
};

/// Time in which a new connection must greet.
const GREETING_TIMEOUT: Duration = Duration::from_secs(2);
/// Responses that may wait to be written on one connection.
const WRITE_QUEUE_MAX: usize = 4096;

/// Answers the requests of other nodes.
pub(crate) trait Service: Send + Sync + 'static {
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
        identity: Arc<Identity>,
        (me, protocols): (Member, Protocols),
        faults: FaultSink,
        service: Arc<impl Service>,
    ) -> Self {
        let mut accepting = JoinSet::new();
        let greeter = Greeter { identity, me, protocols, faults };
        accepting.spawn(accept(listener, greeter, service));
        Self { address, _accepting: accepting }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn accept(listener: Box<dyn Listener>, greeter: Greeter, service: Arc<impl Service>) {
    let greeter = Arc::new(greeter);
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                let (greeter, service) = (Arc::clone(&greeter), Arc::clone(&service));
                connections.spawn(async move {
                    if let Err(reason) = serve(stream, &greeter, service).await {
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
    greeter: &Greeter,
    service: Arc<impl Service>,
) -> Result<(), String> {
    let (mut reader, mut writer) = split(stream);
    let greeting = tokio::time::timeout(GREETING_TIMEOUT, greeter.greet(&mut reader, &mut writer));
    let (node, member) = greeting.await.map_err(|_| "did not greet in time".to_owned())??;
    service.met(node, &member);

    let (responses, queue) = mpsc::channel(WRITE_QUEUE_MAX);
    let mut tasks = JoinSet::new();
    tasks.spawn(write_frames(writer, queue));
    while let Some(frame) = reader.next().await {
        let frame = frame.map_err(|error| error.to_string())?;
        let Envelope { id, body } =
            wire::decode::<Envelope<Request>>(&frame).map_err(|error| error.to_string())?;
        let answer = Arc::clone(&service).answer(node, body);
        let mut answering = Box::pin(respond(id, answer, responses.clone()));
        // Polled once here: what must be in order happens before the first suspension.
        if answering.as_mut().now_or_never().is_none() {
            tasks.spawn(answering);
        }
        while tasks.try_join_next().is_some() {}
    }
    Ok(())
}

async fn respond(
    id: u64,
    answer: Pin<Box<dyn Future<Output = Response> + Send>>,
    responses: mpsc::Sender<Bytes>,
) {
    let body = answer.await;
    match wire::encode(&Envelope { id, body }) {
        // A connection that has ended needs no answer.
        Ok(frame) => drop(responses.send(frame).await),
        Err(error) => tracing::error!(%error, "an answer to a peer cannot be encoded"),
    }
}

struct Greeter {
    identity: Arc<Identity>,
    me: Member,
    protocols: Protocols,
    faults: FaultSink,
}

impl Greeter {
    async fn greet(
        &self,
        reader: &mut FrameReader,
        writer: &mut FrameWriter,
    ) -> Result<(NodeId, Member), String> {
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
        let (reply, result) = match self.check(&hello) {
            Ok(()) => (
                HelloReply::Welcome {
                    protocol,
                    node: self.identity.node().0,
                    incarnation: self.identity.incarnation(),
                    progress: self.identity.progress(),
                    member: self.me.clone(),
                },
                Ok((node, hello.member)),
            ),
            Err(reply) => {
                let reason = format!("{reply:?}");
                (reply, Err(reason))
            }
        };
        let frame = wire::encode(&reply).map_err(|error| error.to_string())?;
        writer.send(frame).await.map_err(|error| error.to_string())?;
        result
    }

    fn check(&self, hello: &Hello) -> Result<(), HelloReply> {
        let refuse = |reason: String| Err(HelloReply::Refused { reason });
        let me = self.identity.node().0;
        if hello.cluster != self.identity.cluster() {
            return refuse(format!("node {me} belongs to another cluster"));
        }
        if hello.shards != self.identity.shards() {
            return refuse(format!("node {me} has {} shards", self.identity.shards()));
        }
        if hello.to.is_some_and(|to| to != me) {
            return refuse(format!("this is node {me}"));
        }
        if hello.node == me {
            return refuse(format!("node id {me} is taken by the node that answers"));
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
