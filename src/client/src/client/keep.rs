//! A device that tends itself.
//!
//! Guarantees: a pool that runs low is filled when a server says so, and at the next poll when no
//! server does; events make the device look, and no more than once in a second. A stream that is
//! lost is opened again, at any node, after a growing, jittered pause.
//!
//! Leaves out: a task. Nothing happens but while the future is polled.

use std::time::Duration;

use bytes::Bytes;
use oncekey_api::{event::Event, path};
use oncekey_types::Seq;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{Client, ServerEvent, Tended, WriteError};
use crate::{
    http::Backoff,
    keystore::KeyStore,
    machine::PinnedDeviceList,
    transport::{Call, EventSource, Method, Subscribe},
};

/// Pauses before a lost stream is opened again.
const RECONNECT: Backoff =
    Backoff { first: Duration::from_secs(1), cap: Duration::from_secs(5 * 60) };
/// A stream that lasted so long was a good one.
const LASTED: Duration = Duration::from_secs(60);
/// Pauses after a failure.
const AFTER_FAILURE: Backoff =
    Backoff { first: Duration::from_secs(5), cap: Duration::from_secs(10 * 60) };
/// Shortest time from one look to the next.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl<T: Subscribe, S: KeyStore> Client<T, S> {
    /// [Tends](Self::tend) the device now, whenever a server says that there is something to do,
    /// and when it is due in any case; tells `tended` each time. Run it beside everything else,
    /// and drop it to stop.
    ///
    /// Ends well when the device is not registered, or no more.
    ///
    /// # Errors
    ///
    /// A [`WriteError`] that another try will not mend.
    pub async fn keep_tended(&self, mut tended: impl FnMut(Tended)) -> Result<(), WriteError> {
        let mut events = Events { open: None, lost: 0, again_at: Instant::now() };
        let mut failed = 0;
        loop {
            let looked = Instant::now();
            let again_after = match self.tend().await {
                Ok(Some(done)) => {
                    failed = 0;
                    let again_after = done.again_after;
                    tended(done);
                    again_after
                }
                Ok(None) => return Ok(()),
                Err(error) if error.is_retryable() => {
                    tracing::debug!(%error, "the device was not tended");
                    failed += 1;
                    AFTER_FAILURE.jittered(failed - 1)
                }
                Err(error) => return Err(error),
            };
            let due = looked + again_after.max(LOOK_EVERY);
            self.something_to_do(&mut events, due).await?;
            sleep_until(looked + LOOK_EVERY).await;
        }
    }

    /// Waits for an event that asks for tending, until `due`.
    async fn something_to_do(
        &self,
        events: &mut Events<T::Events>,
        due: Instant,
    ) -> Result<(), WriteError> {
        loop {
            let Ok(event) = timeout_at(due, events.next(self)).await else {
                return Ok(());
            };
            match event {
                Event::PoolLow { .. } | Event::SignedPreKeyDue { .. } => return Ok(()),
                Event::DeviceListChanged { seq } => match self.follow_own_list(seq).await {
                    Ok(()) => {}
                    // A stream opens with the position of the list.
                    Err(error) if error.is_retryable() => events.lose(),
                    Err(error) => return Err(error),
                },
            }
        }
    }

    async fn follow_own_list(&self, seq: Seq) -> Result<(), WriteError> {
        let user = self.user().clone();
        let pinned = self.stored(move |store| store.pinned_device_list(&user)).await?;
        if pinned.as_ref().map(PinnedDeviceList::seq) != Some(seq) {
            self.on_event(ServerEvent::DeviceListChanged).await?;
        }
        Ok(())
    }

    fn events_call(&self) -> Call {
        Call {
            method: Method::Get,
            path: path::events(self.user(), self.device.address().device()),
            body: Bytes::new(),
            idempotency_key: None,
            slot: self.slot(),
            credentials: self.signature(),
        }
    }
}

/// A stream of events that is opened again when it ends.
struct Events<E> {
    open: Option<(E, Instant)>,
    /// Streams that were lost, or not to be had, one after the other.
    lost: usize,
    /// When to open the next.
    again_at: Instant,
}

impl<E> Events<E> {
    /// The next event, however often the stream is lost before it. May be dropped at any time.
    async fn next<T, S>(&mut self, client: &Client<T, S>) -> Event
    where
        T: Subscribe<Events = E>,
        S: KeyStore,
        E: EventSource,
    {
        loop {
            match &mut self.open {
                Some((stream, _)) => match stream.next().await {
                    Some(event) => return event,
                    None => self.lose(),
                },
                None => {
                    sleep_until(self.again_at).await;
                    match client.transport.subscribe(&client.events_call()).await {
                        Ok(stream) => self.open = Some((stream, Instant::now())),
                        Err(error) => {
                            tracing::debug!(%error, "no events; the device polls");
                            self.lose();
                        }
                    }
                }
            }
        }
    }

    /// Gives the stream up, and opens another after a pause.
    fn lose(&mut self) {
        if self.open.take().is_some_and(|(_, since)| since.elapsed() >= LASTED) {
            self.lost = 0;
        }
        self.again_at = Instant::now() + RECONNECT.jittered(self.lost);
        self.lost = self.lost.saturating_add(1);
    }
}
