//! One connection to another node, many requests at a time.
//!
//! Guarantees: requests are written in the order of their calls; when the connection ends every
//! waiting request ends with [`CallError::Closed`]; a request tells what was written when it was
//! queued; what an answer says was written is noted before the caller has the answer. Leaves out:
//! dialling again, see `pool`.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};

use super::wire::{self, Envelope, Request, Response};
use crate::environment::{ReadHalf, Stream, WriteHalf};

/// Frames that may wait to be written on one connection.
const WRITE_QUEUE_MAX: usize = 4096;

pub(crate) type FrameReader = FramedRead<ReadHalf, LengthDelimitedCodec>;
pub(crate) type FrameWriter = FramedWrite<WriteHalf, LengthDelimitedCodec>;

/// Why a call has no answer. What it asked for may have happened all the same, unless the error
/// says otherwise.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The peer cannot be reached; the request was not sent.
    #[error("{0}")]
    Unreachable(String),
    /// The connection ended.
    #[error("the connection ended")]
    Closed,
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// Too many frames wait to be written; the request was not sent.
    #[error("too many frames wait to be written")]
    Overloaded,
    /// The request cannot be encoded; it was not sent.
    #[error("the request cannot be encoded: {0}")]
    Encode(String),
}

type Waiting = Mutex<Option<HashMap<u64, oneshot::Sender<Response>>>>;

/// What the two ends of a connection tell each other of their logs.
pub(crate) trait Telling: Send + Sync + 'static {
    /// How much this node has written to its log, all of it durable.
    fn written(&self) -> u64;

    /// The peer says that it has written this much.
    fn told(&self, written: u64);
}

/// A live connection. Ends when dropped.
pub(crate) struct Link {
    protocol: u32,
    telling: Arc<dyn Telling>,
    frames: mpsc::Sender<Bytes>,
    /// `None` once the connection has ended.
    waiting: Arc<Waiting>,
    next_id: AtomicU64,
    heard: Arc<Mutex<Instant>>,
}

impl Link {
    /// Takes over a connection on which both sides have greeted each other and agreed on `protocol`.
    pub(crate) fn new(
        protocol: u32,
        reader: FrameReader,
        writer: FrameWriter,
        telling: Arc<dyn Telling>,
    ) -> Self {
        let (frames, queue) = mpsc::channel(WRITE_QUEUE_MAX);
        let waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        tokio::spawn(write_frames(writer, queue));
        let heard = Arc::new(Mutex::new(Instant::now()));
        let responses = Responses {
            protocol,
            telling: Arc::clone(&telling),
            waiting: Arc::clone(&waiting),
            heard: Arc::clone(&heard),
            link: frames.downgrade(),
        };
        tokio::spawn(responses.read(reader));
        Self { protocol, telling, frames, waiting, next_id: AtomicU64::new(0), heard }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.frames.is_closed() || self.waiting.lock().is_none()
    }

    /// Sends `request` and waits for its answer.
    ///
    /// The frame is queued when the future is polled first, so calls polled one after the other
    /// are written in that order.
    pub(crate) async fn call(
        &self,
        request: Request,
        timeout: Duration,
    ) -> Result<Response, CallError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        // Read after what is asked for was decided on, so a request covers what it vouches for: a
        // candidate's vote, and the entries that a leader calls committed.
        let written = self.telling.written();
        let frame = wire::encode_telling(self.protocol, &Envelope { id, body: request }, written)
            .map_err(|error| CallError::Encode(error.to_string()))?;
        let (sender, answer) = oneshot::channel();
        match self.waiting.lock().as_mut() {
            Some(waiting) => waiting.insert(id, sender),
            None => return Err(CallError::Closed),
        };
        let waiter = Waiter { id, waiting: &self.waiting };
        self.frames.try_send(frame).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => CallError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => CallError::Closed,
        })?;
        let answer = tokio::time::timeout(timeout, answer).await;
        drop(waiter);
        match answer {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(_)) => Err(CallError::Closed),
            Err(_) => {
                // Nothing at all came in that time: the way is cut without a word, and only a new
                // connection will find out when it is open again.
                if self.heard.lock().elapsed() >= timeout {
                    self.waiting.lock().take();
                }
                Err(CallError::Timeout)
            }
        }
    }
}

/// Forgets a request whose caller stopped waiting.
struct Waiter<'a> {
    id: u64,
    waiting: &'a Waiting,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        if let Some(waiting) = self.waiting.lock().as_mut() {
            waiting.remove(&self.id);
        }
    }
}

/// Writes queued frames, all that wait in one flush. Ends when the link is dropped or the
/// connection breaks.
pub(crate) async fn write_frames(mut writer: FrameWriter, mut queue: mpsc::Receiver<Bytes>) {
    let mut batch = Vec::new();
    while queue.recv_many(&mut batch, WRITE_QUEUE_MAX).await > 0 {
        for frame in batch.drain(..) {
            if writer.feed(frame).await.is_err() {
                return;
            }
        }
        if SinkExt::<Bytes>::flush(&mut writer).await.is_err() {
            return;
        }
    }
}

/// What becomes of the answers.
struct Responses {
    protocol: u32,
    telling: Arc<dyn Telling>,
    waiting: Arc<Waiting>,
    heard: Arc<Mutex<Instant>>,
    link: mpsc::WeakSender<Bytes>,
}

impl Responses {
    async fn read(self, mut reader: FrameReader) {
        while let Some(Ok(frame)) = reader.next().await {
            *self.heard.lock() = Instant::now();
            match wire::decode_telling(self.protocol, &frame) {
                Ok((answer, written)) => {
                    if let Some(written) = written {
                        self.telling.told(written);
                    }
                    self.pass_on(answer);
                }
                Err(error) => {
                    tracing::warn!(%error, "a peer sent a frame that cannot be read; closing");
                    break;
                }
            }
            if self.link.upgrade().is_none() {
                break;
            }
        }
        self.waiting.lock().take();
    }

    fn pass_on(&self, Envelope { id, body }: Envelope<Response>) {
        let waiter = self.waiting.lock().as_mut().and_then(|waiting| waiting.remove(&id));
        if let Some(waiter) = waiter {
            // The caller may have stopped waiting in this moment.
            let _ = waiter.send(body);
        }
    }
}

/// Splits a connection into frames.
pub(crate) fn split(stream: Box<dyn Stream>) -> (FrameReader, FrameWriter) {
    let (read, write) = stream.into_halves();
    (FramedRead::new(read, wire::frames()), FramedWrite::new(write, wire::frames()))
}

#[cfg(test)]
mod tests {
    use tokio_test::{
        assert_pending, assert_ready,
        io::{Builder, Handle},
        task,
    };

    use super::*;
    use crate::identity::Progress;

    const PROGRESS: Progress = Progress { life: 1, opened: 1, written: 1 };
    const PATIENCE: Duration = Duration::from_secs(5);

    /// A frame as it is on the wire.
    fn frame(message: &impl serde::Serialize) -> Vec<u8> {
        let body = wire::encode(message).unwrap();
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&length[..], &body].concat()
    }

    fn ping(id: u64) -> Vec<u8> {
        frame(&Envelope { id, body: Request::Ping })
    }

    fn pong(id: u64, shard: u16) -> Vec<u8> {
        frame(&pong_of(id, shard))
    }

    fn pong_of(id: u64, shard: u16) -> Envelope<Response> {
        Envelope { id, body: Response::Pong { leads: vec![shard], progress: PROGRESS } }
    }

    /// A link over a scripted connection, which fails when the link strays from the script.
    fn link(script: &mut Builder) -> (Link, Handle) {
        link_of(3, script, Arc::default())
    }

    /// What the peer told last, and that plus one for this node.
    #[derive(Default)]
    struct Told(AtomicU64);

    impl Telling for Told {
        fn written(&self) -> u64 {
            self.0.load(Ordering::Relaxed) + 1
        }

        fn told(&self, written: u64) {
            self.0.store(written, Ordering::Relaxed);
        }
    }

    fn link_of(protocol: u32, script: &mut Builder, told: Arc<Told>) -> (Link, Handle) {
        let (stream, handle) = script.build_with_handle();
        let (read, write) = tokio::io::split(stream);
        let reader: ReadHalf = Box::new(read);
        let writer: WriteHalf = Box::new(write);
        let reader = FramedRead::new(reader, wire::frames());
        let writer = FramedWrite::new(writer, wire::frames());
        (Link::new(protocol, reader, writer, told), handle)
    }

    /// Asks, and says which shard the answer names.
    async fn asked(link: &Link) -> Option<u16> {
        match link.call(Request::Ping, PATIENCE).await {
            Ok(Response::Pong { leads, .. }) => leads.first().copied(),
            _ => None,
        }
    }

    #[tokio::test]
    async fn answers_in_any_order_reach_whoever_asked() {
        let mut script = Builder::new();
        script.write(&ping(0)).write(&ping(1)).read(&pong(1, 71)).read(&pong(0, 70));
        let (link, _handle) = link(&mut script);
        assert_eq!(tokio::join!(asked(&link), asked(&link)), (Some(70), Some(71)));
    }

    #[tokio::test]
    async fn what_an_answer_says_was_written_is_noted_before_the_caller_has_it() {
        let told = Arc::new(Told::default());
        let mut script = Builder::new();
        script.write(&ping(0)).read(&frame(&(pong_of(0, 7), 41u64)));
        let (link, _handle) = link_of(4, &mut script, Arc::clone(&told));
        assert_eq!(asked(&link).await, Some(7));
        assert_eq!(told.0.load(Ordering::Relaxed), 41);
    }

    #[tokio::test]
    async fn a_request_tells_what_is_written_by_then() {
        let asking = |id, written: u64| frame(&(Envelope { id, body: Request::Ping }, written));
        let mut script = Builder::new();
        script.write(&asking(0, 1)).read(&frame(&(pong_of(0, 7), 41u64)));
        script.write(&asking(1, 42)).read(&frame(&(pong_of(1, 8), 41u64)));
        let (link, _handle) = link_of(5, &mut script, Arc::default());
        assert_eq!(asked(&link).await, Some(7));
        assert_eq!(asked(&link).await, Some(8));
    }

    #[tokio::test]
    async fn an_answer_that_comes_byte_by_byte_is_complete_with_the_last_one() {
        let (link, mut handle) = link(Builder::new().write(&ping(0)));
        let mut call = task::spawn(asked(&link));
        assert_pending!(call.poll());
        let answer = pong(0, 7);
        for byte in &answer {
            assert_pending!(call.poll());
            handle.read(&[*byte]);
            settle().await;
        }
        assert!(call.is_woken());
        assert_eq!(assert_ready!(call.poll()), Some(7));
    }

    #[tokio::test]
    async fn a_frame_that_cannot_be_read_ends_every_call() {
        let mut script = Builder::new();
        script.write(&ping(0)).read(&[0, 0, 0, 3, 0xff, 0xff, 0xff]);
        let (link, _handle) = link(&mut script);
        let answer = link.call(Request::Ping, PATIENCE).await;
        assert!(matches!(answer, Err(CallError::Closed)));
        assert!(link.is_closed());
        assert!(matches!(link.call(Request::Ping, PATIENCE).await, Err(CallError::Closed)));
    }

    #[tokio::test]
    async fn an_answer_to_a_call_that_was_given_up_disturbs_nobody() {
        let (link, mut handle) = link(Builder::new().write(&ping(0)).write(&ping(1)));
        {
            let mut given_up = task::spawn(asked(&link));
            assert_pending!(given_up.poll());
        }
        let mut call = task::spawn(asked(&link));
        assert_pending!(call.poll());
        settle().await;
        handle.read(&pong(0, 70)).read(&pong(1, 71));
        settle().await;
        assert_eq!(assert_ready!(call.poll()), Some(71));
    }

    /// Lets the tasks of the link do what they can.
    async fn settle() {
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
    }
}
