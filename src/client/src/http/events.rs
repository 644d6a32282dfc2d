//! Streams of events over HTTP.
//!
//! Guarantees: a stream that says nothing for a minute, not even that it lives, is given up, and
//! so is one that sends an event over the limit.

use std::{collections::VecDeque, time::Duration};

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use oncekey_api::event::{Event, EventReader, RawEvent};
use tokio::time::{Instant, timeout};

use super::{AnyNode, Endpoint, pool};
use crate::transport::{
    Attempt, AttemptFailure, Attempts, Call, CallError, EventSource, Subscribe, Verdict,
};

/// Silence after which a stream is given up: three signs of life were missed.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Events as a node sends them.
#[derive(Debug)]
pub struct EventStream {
    body: Incoming,
    reader: EventReader,
    ready: VecDeque<Event>,
}

impl EventSource for EventStream {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let frame = timeout(SILENCE_MAX, self.body.frame()).await.ok()??.ok()?;
            if let Ok(data) = frame.into_data() {
                let events = self.reader.push(&data).ok()?;
                self.ready.extend(events.iter().filter_map(understood));
            }
        }
    }
}

impl Subscribe for AnyNode {
    type Events = EventStream;

    async fn subscribe(&self, call: &Call) -> Result<EventStream, CallError> {
        let called = Instant::now();
        let mut attempts = Attempts::default();
        let mut last = AttemptFailure::Connect;
        for endpoint in &self.config.endpoints {
            let started = Instant::now();
            let result = self.open(endpoint, call, called.elapsed()).await;
            attempts.push(Attempt {
                endpoint: endpoint.to_string(),
                failure: result.as_ref().err().cloned(),
                took: started.elapsed(),
            });
            match result {
                Ok(stream) => return Ok(stream),
                Err(failure) if failure.verdict() == Verdict::Refused => {
                    return Err(CallError::Refused { failure, attempts });
                }
                Err(failure) => last = failure,
            }
        }
        Err(CallError::Unavailable { failure: last, attempts })
    }
}

impl AnyNode {
    async fn open(
        &self,
        endpoint: &Endpoint,
        call: &Call,
        later: Duration,
    ) -> Result<EventStream, AttemptFailure> {
        let request = pool::request(endpoint, call, &self.asker(call).await?, later)?;
        let opened = self.shared.pool.open_events(request);
        let body = timeout(self.config.attempt_timeout, opened);
        let body = body.await.map_err(|_| AttemptFailure::Timeout)??;
        Ok(EventStream { body, reader: EventReader::default(), ready: VecDeque::new() })
    }
}

/// The event, if this version knows it.
fn understood(raw: &RawEvent) -> Option<Event> {
    let data: serde_json::Value = serde_json::from_str(&raw.data).ok()?;
    serde_json::from_value(serde_json::json!({ "event": raw.name, "data": data })).ok()
}
