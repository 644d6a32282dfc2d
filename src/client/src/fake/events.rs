//! Streams of events that a test fills.

use oncekey_api::event::Event;
use tokio::sync::{
    mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    watch,
};

use super::FakeServer;
use crate::transport::{AttemptFailure, Attempts, Call, CallError, EventSource, Subscribe};

/// The streams of a server; the newest gets the events.
#[derive(Default)]
pub(super) struct Streams {
    newest: Option<UnboundedSender<Event>>,
    opened: watch::Sender<usize>,
    none: bool,
}

pub(crate) struct FakeEvents(UnboundedReceiver<Event>);

impl EventSource for FakeEvents {
    async fn next(&mut self) -> Option<Event> {
        self.0.recv().await
    }
}

impl Subscribe for FakeServer {
    type Events = FakeEvents;

    async fn subscribe(&self, _: &Call) -> Result<FakeEvents, CallError> {
        let streams = &mut self.0.lock().streams;
        if streams.none {
            let (failure, attempts) = (AttemptFailure::Status(404), Attempts::default());
            return Err(CallError::Refused { failure, attempts });
        }
        let (sender, receiver) = unbounded_channel();
        streams.newest = Some(sender);
        streams.opened.send_modify(|opened| *opened += 1);
        Ok(FakeEvents(receiver))
    }
}

impl FakeServer {
    /// Opens no streams.
    pub(crate) fn no_streams(&self) {
        self.0.lock().streams.none = true;
    }

    /// Waits until so many streams were opened.
    pub(crate) async fn streams(&self, opened: usize) {
        let mut seen = self.0.lock().streams.opened.subscribe();
        seen.wait_for(|seen| *seen >= opened).await.unwrap();
    }

    /// Sends an event on the newest stream.
    pub(crate) fn push(&self, event: Event) {
        self.0.lock().streams.newest.as_ref().unwrap().send(event).unwrap();
    }

    /// Ends the newest stream.
    pub(crate) fn hang_up(&self) {
        self.0.lock().streams.newest = None;
    }
}
