//! Texts that come again and again.
//!
//! Guarantees: one [`Name`] for each text, in the order in which the texts came first.

use std::{collections::BTreeMap, sync::Arc};

/// Stands for a text of one history.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Name(u32);

/// The texts of a history.
#[derive(Clone, Debug, Default)]
pub struct Names {
    known: BTreeMap<Arc<str>, Name>,
    texts: Vec<Arc<str>>,
}

impl Names {
    /// The name of `text`, when it has one.
    #[must_use]
    pub fn find(&self, text: &str) -> Option<Name> {
        self.known.get(text).copied()
    }

    /// The text of a `name` that this history gave.
    #[must_use]
    pub fn text(&self, name: Name) -> &str {
        self.texts.get(name.0 as usize).map_or("?", |text| text)
    }

    /// The name of `text`; none when there are too many.
    pub(super) fn name(&mut self, text: &str) -> Option<Name> {
        if let Some(name) = self.find(text) {
            return Some(name);
        }
        let name = Name(u32::try_from(self.texts.len()).ok()?);
        let text: Arc<str> = text.into();
        self.known.insert(Arc::clone(&text), name);
        self.texts.push(text);
        Some(name)
    }
}
