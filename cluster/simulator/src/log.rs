//! What nodes log, counted.
//!
//! Guarantees: each message is counted under its text, which is constant; its fields are left out,
//! so no key and no user gets here.

use std::{collections::BTreeMap, fmt, sync::Arc};

use parking_lot::Mutex;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, filter::Targets, layer::Context};

/// Counts of messages. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Messages(Arc<Mutex<BTreeMap<String, u64>>>);

impl Messages {
    pub(crate) fn counts(&self) -> BTreeMap<String, u64> {
        self.0.lock().clone()
    }
}

/// Which messages are counted: those for operators.
pub(crate) fn counted() -> Targets {
    Targets::new().with_target("oncekey_raft", Level::INFO)
}

impl<S: Subscriber> Layer<S> for Messages {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Text::default();
        event.record(&mut text);
        *self.0.lock().entry(text.0).or_default() += 1;
    }
}

#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}
