//! Telling devices what there is to look at, as it happens.
//!
//! A stream reads this node's own replica whenever an entry that names its user was applied here,
//! so a node that lags tells late; a node without a replica waits for the leader's word. So any
//! node serves any device.
//!
//! Guarantees: no more streams than configured, one for each device on this node, the newest; each
//! reads a few times in a second at most, however busy its user is. A stream ends at a shutdown,
//! when its device is gone, and after an hour, so that devices spread over the nodes again.
//!
//! Leaves out: delivery. A device that was told nothing still polls.

use std::{collections::BTreeMap, convert::Infallible, future::pending, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{HeaderValue, header},
    response::Response,
};
use futures_util::stream;
use oncekey_api::{
    Code, Problem,
    event::{EVENT_STREAM, Event, SIGN_OF_LIFE},
    problem::Members,
};
use oncekey_raft::Watch;
use oncekey_store::{
    outcome::DeviceSummary,
    query::{Answer, Query},
};
use oncekey_types::{DeviceId, LogIndex, Seq, SignedPreKeyId, TimestampMs, UserId};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, sleep_until},
};

use crate::{
    app::App,
    auth::DeviceAuthority,
    extract::EventsOf,
    reply::{Rejection, internal},
};

/// Longest silence of a stream.
const SIGN_OF_LIFE_EVERY: Duration = Duration::from_secs(20);
/// Pause between a change and the read that tells what it was, for a user who is busy.
const GATHER: Duration = Duration::from_millis(200);
/// How long a stream lasts.
const STREAM_LASTS: Duration = Duration::from_secs(60 * 60);

/// `GET /v1/events`
pub(crate) async fn events(
    State(app): State<Arc<App>>,
    EventsOf(authority): EventsOf,
) -> Result<Response, Rejection> {
    let DeviceAuthority { user, device, .. } = authority;
    let query = Query::Summary { user: user.clone(), device };
    // Not from this replica: it may not have heard of a device that has just registered.
    let read = app.node.query(&query, app.write_deadline()).await?;
    match read.answer {
        Answer::Summary(Some(_)) => {}
        Answer::Summary(None) => {
            let members = Members { device: Some(device), ..Members::default() };
            let detail = format!("device {device} is not registered");
            return Err(Problem::with(Code::UnknownDevice, detail, members).into());
        }
        _ => return Err(internal().into()),
    }
    let Some(place) = app.streams.open(user.clone(), device) else {
        let detail = "the node has as many streams of events open as it takes on";
        return Err(Problem::new(Code::Overloaded, detail).into());
    };
    let open = Stream {
        watch: app.node.watch(&user),
        query,
        known: read.index,
        told: Told::default(),
        read_elsewhere: None,
        place,
        ends: Instant::now() + STREAM_LASTS,
        app,
    };
    let events = stream::unfold(open, |mut open| async move {
        let text = open.next().await?;
        Some((Ok::<_, Infallible>(text), open))
    });
    let mut response = Response::new(Body::from_stream(events));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM));
    Ok(response)
}

/// An open stream of one device.
struct Stream {
    app: Arc<App>,
    watch: Watch,
    query: Query,
    /// The device was registered when the log was this long.
    known: LogIndex,
    told: Told,
    /// What another node said last, while this one has no replica.
    read_elsewhere: Option<Answer>,
    place: Place,
    ends: Instant,
}

impl Stream {
    /// What to send next; none when the stream is to end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let text = self.news().await?;
            if !text.is_empty() {
                return Some(text.into());
            }
            tokio::select! {
                biased;
                () = self.app.drained() => return None,
                () = self.place.newest.notified() => return None,
                () = sleep_until(self.ends) => return None,
                () = self.watch.changed() => sleep(GATHER).await,
                () = changed_elsewhere(&self.app, &self.query, self.read_elsewhere.as_ref()) => {
                    sleep(GATHER).await;
                }
                () = sleep(SIGN_OF_LIFE_EVERY) => return Some(SIGN_OF_LIFE.into()),
            }
        }
    }

    /// What there is to tell by now; none when there is no such device any more.
    async fn news(&mut self) -> Option<String> {
        // A fault ends the node, and with it the stream.
        let (answer, index) = match self.app.node.query_local(&self.query).ok()? {
            Some(read) => (read.answer, read.index),
            None => match self.app.node.query(&self.query, self.app.write_deadline()).await {
                Ok(read) => {
                    self.read_elsewhere = Some(read.answer.clone());
                    (read.answer, read.index)
                }
                Err(_) => return Some(String::new()),
            },
        };
        let summary = match answer {
            Answer::Summary(Some(summary)) => summary,
            // This replica is behind.
            Answer::Summary(None) if index < self.known => return Some(String::new()),
            _ => return None,
        };
        let due = self.app.signed_prekey_due;
        let events = self.told.news(&summary, self.app.low_watermark, due, self.app.now());
        let mut text = String::new();
        for event in events {
            self.app.metrics.told(&event);
            text.push_str(&event.to_text());
        }
        Some(text)
    }
}

/// Waits until another node says something else than `known`.
async fn changed_elsewhere(app: &App, query: &Query, known: Option<&Answer>) {
    match known {
        Some(known) => app.node.changed_elsewhere(query, known).await,
        None => pending().await,
    }
}

/// What a device has been told on its stream.
#[derive(Default)]
struct Told {
    pool_low: bool,
    due: Option<SignedPreKeyId>,
    list: Option<Seq>,
}

impl Told {
    /// What is so and was not told; told from now on.
    fn news(
        &mut self,
        summary: &DeviceSummary,
        low_watermark: u32,
        due_after: Duration,
        now: TimestampMs,
    ) -> Vec<Event> {
        let mut news = Vec::new();
        let count = summary.pool.count;
        let is_low = count <= low_watermark;
        if is_low && !self.pool_low {
            news.push(Event::PoolLow { count, low_watermark });
        }
        self.pool_low = is_low;
        let signed_prekey = summary.pool.signed_prekey;
        let is_due = now.since(summary.signed_prekey_accepted) >= due_after;
        if is_due && self.due != Some(signed_prekey) {
            news.push(Event::SignedPreKeyDue { signed_prekey });
            self.due = Some(signed_prekey);
        }
        if let Some(seq) = summary.device_list_seq
            && self.list != Some(seq)
        {
            news.push(Event::DeviceListChanged { seq });
            self.list = Some(seq);
        }
        news
    }
}

/// The streams that are open. Clones share them.
#[derive(Clone)]
pub(crate) struct Streams(Arc<Inner>);

struct Inner {
    places: Arc<Semaphore>,
    newest: Mutex<BTreeMap<(UserId, DeviceId), Arc<Notify>>>,
}

/// The place of one stream among those that are open.
struct Place {
    of: (UserId, DeviceId),
    /// Told when the device opens another.
    newest: Arc<Notify>,
    streams: Arc<Inner>,
    _permit: OwnedSemaphorePermit,
}

impl Streams {
    pub(crate) fn new(streams_max: usize) -> Self {
        let places = Arc::new(Semaphore::new(streams_max));
        Self(Arc::new(Inner { places, newest: Mutex::default() }))
    }

    /// A place for a stream of this device, in place of one that it has; none when all are taken.
    fn open(&self, user: UserId, device: DeviceId) -> Option<Place> {
        let permit = Arc::clone(&self.0.places).try_acquire_owned().ok()?;
        let (of, newest) = ((user, device), Arc::new(Notify::new()));
        let before = self.0.newest.lock().insert(of.clone(), Arc::clone(&newest));
        if let Some(before) = before {
            before.notify_one();
        }
        Some(Place { of, newest, streams: Arc::clone(&self.0), _permit: permit })
    }

    /// How many are open.
    pub(crate) fn len(&self) -> usize {
        self.0.newest.lock().len()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut newest = self.streams.newest.lock();
        if newest.get(&self.of).is_some_and(|newest| Arc::ptr_eq(newest, &self.newest)) {
            newest.remove(&self.of);
        }
    }
}

#[cfg(test)]
mod tests {
    use oncekey_store::outcome::PoolState;
    use oncekey_types::RegistrationId;

    use super::*;

    const DUE: Duration = Duration::from_secs(60);

    fn summary(count: u32, spk: u32, list: Option<u64>) -> DeviceSummary {
        let pool = PoolState { count, signed_prekey: SignedPreKeyId(spk), highest_accepted: None };
        DeviceSummary {
            registration: RegistrationId(1),
            pool,
            signed_prekey_accepted: TimestampMs(1000),
            device_list_seq: list.map(Seq),
        }
    }

    fn names(told: &mut Told, summary: &DeviceSummary, now_ms: u64) -> Vec<&'static str> {
        let news = told.news(summary, 20, DUE, TimestampMs(now_ms));
        news.iter().map(Event::name).collect()
    }

    #[test]
    fn what_is_so_is_told_when_it_becomes_so_and_once() {
        let mut told = Told::default();
        assert_eq!(names(&mut told, &summary(21, 1, None), 2000), [""; 0]);
        assert_eq!(names(&mut told, &summary(20, 1, None), 2000), ["pool_low"]);
        assert_eq!(names(&mut told, &summary(19, 1, None), 2000), [""; 0]);
        assert_eq!(names(&mut told, &summary(120, 1, None), 2000), [""; 0]);
        assert_eq!(
            names(&mut told, &summary(3, 1, Some(1)), 2000),
            ["pool_low", "device_list_changed"]
        );
        assert_eq!(names(&mut told, &summary(3, 1, Some(2)), 60_999), ["device_list_changed"]);
        assert_eq!(names(&mut told, &summary(3, 1, Some(2)), 61_000), ["signed_prekey_due"]);
        assert_eq!(names(&mut told, &summary(3, 1, Some(2)), 90_000), [""; 0]);
        assert_eq!(names(&mut told, &summary(3, 2, Some(2)), 90_000), ["signed_prekey_due"]);
    }

    #[test]
    fn the_newest_stream_of_a_device_ends_the_one_before_and_places_come_back() {
        use futures_util::FutureExt as _;
        let streams = Streams::new(2);
        let bob = || UserId::new("bob").unwrap();
        let first = streams.open(bob(), DeviceId(1)).unwrap();
        let second = streams.open(bob(), DeviceId(1)).unwrap();
        assert!(first.newest.notified().now_or_never().is_some());
        assert!(second.newest.notified().now_or_never().is_none());
        assert!(streams.open(bob(), DeviceId(2)).is_none(), "no place is left");
        drop(first);
        assert_eq!(streams.len(), 1, "the end of the older leaves the newer");
        assert!(streams.open(bob(), DeviceId(2)).is_some());
        drop(second);
        assert_eq!(streams.len(), 0);
    }
}
