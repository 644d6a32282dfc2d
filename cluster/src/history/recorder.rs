//! Writing a history as it happens.
//!
//! Guarantees: a record is handed to the system in one piece before its call goes on, so a history
//! outlives whoever records it; at most its last line is torn. Records are whole lines, in the
//! order in which they were made, and nothing that was written is touched again. A fault of the
//! disk is told by [`check`](Recorder::check) and by whoever reads the history through the
//! recorder; it does not disturb the run.
//!
//! Leaves out: power cuts. Nothing is synced.

use std::{
    fmt,
    fs::OpenOptions,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use oncekey_types::NodeId;
use parking_lot::Mutex;

use super::{
    History,
    record::{
        At, Begin, Call, Event, EventKind, FORMAT, Invoke, Mark, OperationId, Outcome, Phase,
        Record, Replica, Return, VERSION,
    },
};

/// Records a history. Clones record the same one.
#[derive(Clone)]
pub struct Recorder(Option<Arc<Shared>>);

struct Shared {
    began: Box<dyn Fn() -> Duration + Send + Sync>,
    path: Option<PathBuf>,
    sink: Mutex<Sink>,
}

struct Sink {
    out: Box<dyn Write + Send>,
    line: Vec<u8>,
    next: u64,
    failed: Option<io::Error>,
}

impl Recorder {
    /// Records into the new file `path`, by the clock of the machine.
    ///
    /// # Errors
    ///
    /// When the file is there already or cannot be written.
    pub fn create(path: &Path, source: &str) -> Result<Self> {
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(path)
            .with_context(|| format!("cannot make the history {}", path.display()))?;
        let began = Instant::now();
        let recorder = Self::start(
            Box::new(file),
            Some(path.to_owned()),
            Box::new(move || began.elapsed()),
            source,
            None,
        );
        recorder.check()?;
        Ok(recorder)
    }

    /// Records into `out`, by `clock`, which says how long ago the history began. For a run whose
    /// time is simulated; `seed` repeats it.
    #[must_use]
    pub fn new(
        out: impl Write + Send + 'static,
        clock: impl Fn() -> Duration + Send + Sync + 'static,
        source: &str,
        seed: Option<u64>,
    ) -> Self {
        Self::start(Box::new(out), None, Box::new(clock), source, seed)
    }

    /// Records nothing.
    #[must_use]
    pub fn none() -> Self {
        Self(None)
    }

    fn start(
        out: Box<dyn Write + Send>,
        path: Option<PathBuf>,
        began: Box<dyn Fn() -> Duration + Send + Sync>,
        source: &str,
        seed: Option<u64>,
    ) -> Self {
        let sink = Sink { out, line: Vec::new(), next: 0, failed: None };
        let recorder = Self(Some(Arc::new(Shared { began, path, sink: Mutex::new(sink) })));
        recorder.write(|_, _| {
            let (format, source) = (FORMAT.to_owned(), source.to_owned());
            Record::Begin(Begin { format, version: VERSION, source, seed })
        });
        recorder
    }

    /// A call is about to be sent.
    #[must_use]
    pub fn invoke(&self, client: &str, node: Option<&str>, call: Call) -> OperationId {
        let mut op = OperationId(0);
        self.write(|at_ns, next| {
            op = OperationId(*next);
            *next += 1;
            let (client, node) = (client.to_owned(), node.map(str::to_owned));
            Record::Invoke(Invoke { op, at_ns, client, node, call })
        });
        op
    }

    /// A call has ended for its client.
    pub fn complete(&self, op: OperationId, node: Option<String>, attempts: u32, outcome: Outcome) {
        self.write(|at_ns, _| Record::Return(Return { op, at_ns, node, attempts, outcome }));
    }

    /// Something was done.
    pub fn event(&self, kind: EventKind, node: Option<NodeId>, note: impl Into<String>) {
        self.write(|at_ns, _| Record::Event(Event { at_ns, kind, node, note: note.into() }));
    }

    /// What a replica holds; the time is filled in.
    pub fn replica(&self, replica: Replica) {
        self.write(|at_ns, _| Record::Replica(Replica { at_ns, ..replica }));
    }

    /// The run has come to `phase`.
    pub fn mark(&self, phase: Phase) {
        self.write(|at_ns, _| Record::Mark(Mark { at_ns, phase }));
    }

    /// Time since the history began; zero for a recorder of nothing.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.as_ref().map_or(Duration::ZERO, |shared| (shared.began)())
    }

    /// The file that is written, when there is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.0.as_ref()?.path.as_deref()
    }

    /// Fails when anything could not be written.
    ///
    /// # Errors
    ///
    /// The first fault.
    pub fn check(&self) -> Result<()> {
        if let Some(shared) = &self.0
            && let Some(error) = &shared.sink.lock().failed
        {
            bail!("the history is not complete: {error}");
        }
        Ok(())
    }

    /// What was recorded so far.
    ///
    /// # Errors
    ///
    /// When something could not be written, or there is no file to read.
    pub fn history(&self) -> Result<History> {
        self.check()?;
        let path = self.path().context("no history is recorded into a file")?;
        Ok(History::open(path)?)
    }

    /// Writes what `make` makes of the time and the next number of an operation.
    fn write(&self, make: impl FnOnce(At, &mut u64) -> Record) {
        let Some(shared) = &self.0 else { return };
        let mut sink = shared.sink.lock();
        // Inside the lock, so that times grow from line to line.
        let at = At(u64::try_from((shared.began)().as_nanos()).unwrap_or(u64::MAX));
        let record = make(at, &mut sink.next);
        if sink.failed.is_none()
            && let Err(error) = sink.put(&record)
        {
            sink.failed = Some(error);
        }
    }
}

impl Sink {
    fn put(&mut self, record: &Record) -> io::Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, record)?;
        self.line.push(b'\n');
        self.out.write_all(&self.line)
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Recorder").field(&self.path()).finish()
    }
}
