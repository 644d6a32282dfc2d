//! What a server pushes to a device: server-sent events.
//!
//! `GET` [`EVENTS`](crate::path::EVENTS) is answered with a stream of `text/event-stream` (WHATWG
//! HTML, 9.2). Each event has its name and one line of JSON; a line that begins with a colon is a
//! sign of life.
//!
//! ```text
//! event: pool_low
//! data: {"count":3,"low_watermark":20}
//! ```
//!
//! Guarantees: a stream opens with all that is so at that moment, so that a device that was away
//! misses nothing; after that it tells what becomes so. An event is a reason to look, and no more:
//! the same may be told twice.
//!
//! Leaves out: ids and retry times of events. A stream that ended is opened anew.

use oncekey_types::{Seq, SignedPreKeyId};
use serde::{Deserialize, Serialize};

/// Media type of a stream of events.
pub const EVENT_STREAM: &str = "text/event-stream";
/// A sign of life.
pub const SIGN_OF_LIFE: &str = ":\n\n";
/// Length of one event in bytes.
const EVENT_MAX_BYTES: usize = 4 * 1024;

/// Something that a device should look at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "event", content = "data", rename_all = "snake_case")]
pub enum Event {
    /// The pool is at or below the server's watermark.
    PoolLow {
        /// One-time prekeys in the pool.
        count: u32,
        /// The watermark.
        low_watermark: u32,
    },
    /// The signed prekey is as old as the server lets one grow before it reminds the device.
    #[serde(rename = "signed_prekey_due")]
    SignedPreKeyDue {
        /// The signed prekey.
        signed_prekey: SignedPreKeyId,
    },
    /// The user has a signed device list at this position. Told once when a stream opens, and
    /// again when there is another.
    DeviceListChanged {
        /// Position of the list in its chain.
        seq: Seq,
    },
}

impl Event {
    /// Every name of an event.
    pub const NAMES: [&str; 3] = ["pool_low", "signed_prekey_due", "device_list_changed"];

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        let [pool_low, signed_prekey_due, device_list_changed] = Self::NAMES;
        match self {
            Self::PoolLow { .. } => pool_low,
            Self::SignedPreKeyDue { .. } => signed_prekey_due,
            Self::DeviceListChanged { .. } => device_list_changed,
        }
    }

    /// The event as it stands in a stream.
    #[must_use]
    pub fn to_text(&self) -> String {
        let data = match self {
            Self::PoolLow { count, low_watermark } => {
                format!(r#"{{"count":{count},"low_watermark":{low_watermark}}}"#)
            }
            Self::SignedPreKeyDue { signed_prekey } => {
                format!(r#"{{"signed_prekey":{signed_prekey}}}"#)
            }
            Self::DeviceListChanged { seq } => format!(r#"{{"seq":{seq}}}"#),
        };
        format!("event: {}\ndata: {data}\n\n", self.name())
    }
}

/// An event in a stream is over the limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EventTooLong;

/// Takes a stream apart into the name and the data of each event.
///
/// Comments, other fields and events without data are passed over, as the format asks for.
#[derive(Default, Debug)]
pub struct EventReader {
    line: Vec<u8>,
    name: String,
    data: String,
}

/// An event of a stream, not yet understood; a later version may have others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RawEvent {
    /// Its name.
    pub name: String,
    /// Its data.
    pub data: String,
}

impl EventReader {
    /// Takes the next bytes of a stream and gives the events that they complete.
    ///
    /// # Errors
    ///
    /// [`EventTooLong`]; the stream is of no further use.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<RawEvent>, EventTooLong> {
        let mut events = Vec::new();
        for byte in bytes {
            match byte {
                b'\n' => events.extend(self.end_of_line()),
                _ => self.line.push(*byte),
            }
            if self.line.len() + self.name.len() + self.data.len() > EVENT_MAX_BYTES {
                return Err(EventTooLong);
            }
        }
        Ok(events)
    }

    fn end_of_line(&mut self) -> Option<RawEvent> {
        let line = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(&line)).into_owned();
        if line.is_empty() {
            let (name, data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
            return (!data.is_empty()).then_some(RawEvent { name, data });
        }
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" if self.data.is_empty() => value.clone_into(&mut self.data),
            // Ours have one line of data.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            any::<(u32, u32)>()
                .prop_map(|(count, low_watermark)| Event::PoolLow { count, low_watermark }),
            any::<u32>()
                .prop_map(|id| Event::SignedPreKeyDue { signed_prekey: SignedPreKeyId(id) }),
            any::<u64>().prop_map(|seq| Event::DeviceListChanged { seq: Seq(seq) }),
        ]
    }

    /// An event as a client reads it.
    fn parse(raw: &RawEvent) -> Option<Event> {
        let data: Value = serde_json::from_str(&raw.data).ok()?;
        serde_json::from_value(json!({"event": raw.name, "data": data})).ok()
    }

    proptest! {
        #[test]
        fn events_come_back_as_they_went_however_the_stream_is_cut(
            events in prop::collection::vec(event(), 0..6),
            cuts in prop::collection::vec(1usize..40, 1..20),
        ) {
            let parts = events.iter().map(|event| SIGN_OF_LIFE.to_owned() + &event.to_text());
            let text: String = parts.collect();
            let (mut reader, mut read, mut rest) = (EventReader::default(), Vec::new(), text.as_bytes());
            let mut cuts = cuts.into_iter().cycle();
            while !rest.is_empty() {
                let (head, tail) = rest.split_at(cuts.next().unwrap().min(rest.len()));
                read.extend(reader.push(head).unwrap());
                rest = tail;
            }
            let read: Option<Vec<_>> = read.iter().map(parse).collect();
            prop_assert_eq!(read, Some(events));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = EventReader::default().push(&bytes);
        }
    }

    #[test]
    fn what_is_no_event_of_this_version_is_told_apart() {
        let mut reader = EventReader::default();
        let text = "id: 7\r\nevent: later\r\ndata:{}\r\n\r\nevent: pool_low\n\n: x\nretry: 5\n\n";
        let raw = RawEvent { name: "later".into(), data: "{}".into() };
        assert_eq!(reader.push(text.as_bytes()), Ok(vec![raw.clone()]));
        assert_eq!(parse(&raw), None);
    }

    #[test]
    fn an_event_without_end_is_refused() {
        let mut reader = EventReader::default();
        assert_eq!(reader.push(&[b'x'; EVENT_MAX_BYTES]), Ok(vec![]));
        assert_eq!(reader.push(b"x"), Err(EventTooLong));
    }

    #[test]
    fn a_name_is_that_of_its_json() {
        let event = Event::DeviceListChanged { seq: Seq(7) };
        let json = serde_json::to_value(event).unwrap();
        assert_eq!(json, json!({"event": event.name(), "data": {"seq": 7}}));
    }
}
