//! Where work is done that waits for a disk or takes long.

use std::{fmt, sync::Arc, time::Duration};

use tokio::task::{JoinError, JoinHandle, spawn_blocking};

/// Where work is done that waits for a disk or takes long.
#[derive(Clone)]
pub enum Blocking {
    /// On threads for it: the log has one of its own, the rest share tokio's.
    Threads,
    /// On the thread that serves requests, which stands still meanwhile, after a pause of the
    /// length that the function says. For a simulation: the pause is the time that the disk takes,
    /// and everything happens in the same order in each run.
    Inline(Arc<dyn Fn() -> Duration + Send + Sync>),
}

impl Blocking {
    /// How much of it is worth doing at the same time.
    #[must_use]
    pub fn parallelism(&self) -> usize {
        match self {
            Self::Threads => std::thread::available_parallelism().map_or(1, usize::from),
            Self::Inline(_) => 1,
        }
    }

    /// Does `work` and waits for it.
    ///
    /// # Errors
    ///
    /// When `work` panicked.
    pub async fn run<T, F>(&self, work: F) -> Result<T, JoinError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        match self {
            Self::Threads => spawn_blocking(work).await,
            Self::Inline(takes) => {
                tokio::time::sleep(takes()).await;
                Ok(work())
            }
        }
    }

    /// Does `work` beside everything else.
    pub fn spawn<F>(&self, work: F) -> JoinHandle<()>
    where
        F: FnOnce() + Send + 'static,
    {
        match self {
            Self::Threads => spawn_blocking(work),
            Self::Inline(takes) => {
                let takes = takes();
                tokio::spawn(async move {
                    tokio::time::sleep(takes).await;
                    work();
                })
            }
        }
    }
}

impl fmt::Debug for Blocking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Threads => "Threads",
            Self::Inline(_) => "Inline",
        })
    }
}
