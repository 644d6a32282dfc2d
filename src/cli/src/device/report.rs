//! What a command says: its answer on standard output, the rest on standard error.
//!
//! Guarantees: text that a peer chose is shown by [`Plain`], which lets no control character
//! through.

use std::{
    fmt::{self, Display, Write as _},
    io::{self, IsTerminal, Write as _},
    time::Duration,
};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use oncekey_client::Attempts;
use serde::Serialize;

use crate::output;

const TICK: Duration = Duration::from_millis(100);

/// The form of the answer.
pub(super) struct Output {
    json: bool,
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Prints the answer of a command.
    pub(super) fn show(&self, answer: &(impl Serialize + Display)) -> Result<()> {
        match self.json {
            true => output::line(serde_json::to_string(answer)?),
            false => output::line(answer),
        }
        Ok(())
    }
}

/// Says something beside the answer.
pub(super) fn warn(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Says how many attempts failed before one went well.
pub(super) fn warn_of_retries(attempts: &Attempts) {
    match attempts.retries() {
        0 => {}
        retries => warn(format_args!("{retries} attempts failed before a node answered")),
    }
}

/// A line on the terminal while something takes its time; nothing elsewhere.
pub(super) fn busy(what: &'static str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner().with_message(what);
    bar.enable_steady_tick(TICK);
    bar
}

/// A bar on the terminal; nothing elsewhere.
pub(super) fn bar(what: &'static str, length: usize) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg} [{bar:30}] {pos}/{len}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let length = u64::try_from(length).unwrap_or(u64::MAX);
    ProgressBar::new(length).with_style(style).with_message(what)
}

/// Text of a peer, with control characters written as escapes, lines kept.
pub(super) struct Plain<'a>(pub(super) &'a [u8]);

impl Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in String::from_utf8_lossy(self.0).chars() {
            match character {
                '\n' | '\t' => f.write_char(character)?,
                // Marks that turn the direction of text can make it read as another.
                '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                    write!(f, "{}", character.escape_default())?;
                }
                control if control.is_control() => write!(f, "{}", control.escape_default())?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// Seconds, as people say them.
pub(super) struct Age(pub(super) u64);

impl Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            seconds @ ..60 => write!(f, "{seconds} s"),
            seconds @ 60..3600 => write!(f, "{} min", seconds / 60),
            seconds @ 3600..172_800 => write!(f, "{} h", seconds / 3600),
            seconds => write!(f, "{} d", seconds / 86_400),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_writes_cannot_move_the_cursor() {
        let evil = "a\u{1b}[2Jb\rc\u{202e}d\te\nf\u{9b}g";
        let plain = Plain(evil.as_bytes()).to_string();
        assert_eq!(plain, "a\\u{1b}[2Jb\\rc\\u{202e}d\te\nf\\u{9b}g");
        assert_eq!(Plain(&[b'a', 0xff]).to_string(), "a\u{fffd}");
    }

    #[test]
    fn an_age_is_said_in_one_unit() {
        let ages = [5, 119, 7200, 172_800].map(|seconds| Age(seconds).to_string());
        assert_eq!(ages, ["5 s", "1 min", "2 h", "2 d"]);
    }
}
