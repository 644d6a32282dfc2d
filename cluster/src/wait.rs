//! Waiting for a condition.
//!
//! Guarantees: a wait ends as soon as its condition holds, at its deadline at the latest, and a
//! wait that failed says what was seen last. Leaves out: plain sleeping; nothing here waits for
//! time to pass.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Time between two looks at a condition.
const INTERVAL: Duration = Duration::from_millis(20);

/// What one look at a condition found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Seen<T> {
    /// The condition holds; the wait ends with this value.
    Done(T),
    /// It does not hold yet; the text says what was seen instead.
    NotYet(String),
}

impl<T> Seen<T> {
    /// A state that is not the one waited for.
    pub fn not_yet(state: impl Into<String>) -> Self {
        Self::NotYet(state.into())
    }
}

impl Seen<()> {
    /// Done when `holds`, otherwise what `state` says.
    pub fn when(holds: bool, state: impl FnOnce() -> String) -> Self {
        if holds { Self::Done(()) } else { Self::NotYet(state()) }
    }
}

/// Looks at `condition` until it holds.
///
/// # Errors
///
/// When `limit` is over, with what was waited for and what was seen last; at once, when the
/// condition fails with an error of its own, which means that it can never hold.
pub async fn until<T>(
    limit: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> Result<Seen<T>>,
) -> Result<T> {
    let start = Instant::now();
    let mut last = String::from("nothing");
    loop {
        // A look that is ready at once is never cut off, so the deadline is checked as well.
        let left = limit.saturating_sub(start.elapsed());
        match tokio::time::timeout(left, condition()).await {
            Ok(Ok(Seen::Done(value))) => return Ok(value),
            Ok(Ok(Seen::NotYet(state))) => last = state,
            Ok(Err(error)) => {
                return Err(error).with_context(|| format!("gave up waiting for {what}"));
            }
            Err(_) => {}
        }
        if start.elapsed() >= limit {
            bail!("waited {limit:?} for {what}; last seen: {last}");
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_when_the_condition_holds() {
        let mut looks = 0;
        let seen = until(Duration::from_secs(60), "the third look", async || {
            looks += 1;
            Ok(if looks == 3 { Seen::Done(looks) } else { Seen::not_yet("too early") })
        })
        .await;
        assert_eq!(seen.unwrap(), 3);
    }

    #[tokio::test]
    async fn a_wait_that_is_over_says_what_it_saw_last() {
        let error = until(Duration::from_millis(50), "a miracle", async || {
            Ok(Seen::<()>::not_yet("a frog"))
        })
        .await
        .unwrap_err();
        let text = error.to_string();
        assert!(text.contains("a miracle") && text.contains("last seen: a frog"), "{text}");
    }

    #[tokio::test]
    async fn a_look_that_hangs_is_cut_off() {
        let error = until(Duration::from_millis(50), "an answer", async || {
            std::future::pending::<Result<Seen<()>>>().await
        })
        .await
        .unwrap_err();
        assert!(error.to_string().contains("last seen: nothing"), "{error}");
    }

    #[tokio::test]
    async fn a_condition_that_can_never_hold_ends_the_wait() {
        let error = until(Duration::from_secs(60), "a reply", async || {
            Err::<Seen<()>, _>(anyhow::anyhow!("the node is gone"))
        })
        .await
        .unwrap_err();
        assert!(format!("{error:#}").contains("the node is gone"), "{error:#}");
    }
}
