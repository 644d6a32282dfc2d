//! One connection to another node, many requests at a time.
//!
//! Guarantees: requests are written in the order of their calls; when the connection ends every
//! waiting request ends with [`CallError::Closed`]. Leaves out: dialling again, see `pool`.

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

/// A live connection. Ends when dropped.
pub(crate) struct Link {
    frames: mpsc::Sender<Bytes>,
    /// `None` once the connection has ended.
    waiting: Arc<Waiting>,
    next_id: AtomicU64,
    heard: Arc<Mutex<Instant>>,
}

impl Link {
    /// Takes over a connection on which both sides have greeted each other.
    pub(crate) fn new(reader: FrameReader, writer: FrameWriter) -> Self {
        let (frames, queue) = mpsc::channel(WRITE_QUEUE_MAX);
        let waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        tokio::spawn(write_frames(writer, queue));
        let heard = Arc::new(Mutex::new(Instant::now()));
        tokio::spawn(read_responses(
            reader,
            Arc::clone(&waiting),
            Arc::clone(&heard),
            frames.downgrade(),
        ));
        Self { frames, waiting, next_id: AtomicU64::new(0), heard }
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
        let frame = wire::encode(&Envelope { id, body: request })
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

async fn read_responses(
    mut reader: FrameReader,
    waiting: Arc<Waiting>,
    heard: Arc<Mutex<Instant>>,
    link: mpsc::WeakSender<Bytes>,
) {
    while let Some(Ok(frame)) = reader.next().await {
        *heard.lock() = Instant::now();
        match wire::decode::<Envelope<Response>>(&frame) {
            Ok(Envelope { id, body }) => {
                let waiter = waiting.lock().as_mut().and_then(|waiting| waiting.remove(&id));
                if let Some(waiter) = waiter {
                    // The caller may have stopped waiting in this moment.
                    let _ = waiter.send(body);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a peer sent a frame that cannot be read; closing");
                break;
            }
        }
        if link.upgrade().is_none() {
            break;
        }
    }
    waiting.lock().take();
}

/// Splits a connection into frames.
pub(crate) fn split(stream: Box<dyn Stream>) -> (FrameReader, FrameWriter) {
    let (read, write) = stream.into_halves();
    (FramedRead::new(read, wire::frames()), FramedWrite::new(write, wire::frames()))
}
