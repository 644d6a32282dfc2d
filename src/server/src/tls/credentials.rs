//! What is made of a few files and follows them.
//!
//! Guarantees: readers get what was loaded last and was sound; a change that is unsound is reported
//! once, and every sound one, too. Leaves out: what the files hold.

use std::{fmt, sync::Arc, time::Duration};

use oncekey_raft::Environment;
use oncekey_types::UnixSeconds;
use parking_lot::{Mutex, RwLock};
use prometheus_client::{
    collector::Collector as Collect,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use super::LoadError;

/// Time between two complaints about the same certificate.
const NAG_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);
const DAY_S: u64 = 24 * 60 * 60;

/// What was made of the files as they are.
pub(super) struct Loaded<T> {
    pub(super) value: Arc<T>,
    /// Of everything that was read.
    pub(super) digest: [u8; 32],
    /// When the certificate expires.
    pub(super) expires: UnixSeconds,
}

type Loader<T> = Box<dyn Fn() -> Result<Loaded<T>, LoadError> + Send + Sync>;

/// What is made of a few files.
pub(crate) struct Credentials<T> {
    label: &'static str,
    load: Loader<T>,
    loaded: RwLock<Loaded<T>>,
    trouble: Mutex<Trouble>,
}

/// What was said about the files, so that it is said once.
#[derive(Default)]
struct Trouble {
    reloads: u64,
    failures: u64,
    last_error: Option<String>,
    complained: Option<Instant>,
}

impl<T> Credentials<T> {
    /// Loads for the first time.
    pub(super) fn load(
        label: &'static str,
        load: impl Fn() -> Result<Loaded<T>, LoadError> + Send + Sync + 'static,
    ) -> Result<Arc<Self>, LoadError> {
        let loaded = RwLock::new(load()?);
        Ok(Arc::new(Self { label, load: Box::new(load), loaded, trouble: Mutex::default() }))
    }

    /// What is in force.
    pub(crate) fn current(&self) -> Arc<T> {
        Arc::clone(&self.loaded.read().value)
    }
}

/// Credentials of any kind.
pub(super) trait Follow: Send + Sync + 'static {
    /// What the certificate is for.
    fn label(&self) -> &'static str;

    /// When it expires.
    fn expires(&self) -> UnixSeconds;

    /// Takes the files up if they have changed.
    fn look(&self);

    /// Complains about a certificate that expires within `warning` of `now`.
    fn complain(&self, now: UnixSeconds, warning: Duration);

    /// Reloads that changed something, and those that failed.
    fn reloads(&self) -> (u64, u64);
}

impl<T: Send + Sync + 'static> Follow for Credentials<T> {
    fn label(&self) -> &'static str {
        self.label
    }

    fn expires(&self) -> UnixSeconds {
        self.loaded.read().expires
    }

    fn look(&self) {
        let certificate = self.label;
        match (self.load)() {
            Ok(loaded) => {
                let mut trouble = self.trouble.lock();
                trouble.last_error = None;
                let mut current = self.loaded.write();
                if current.digest != loaded.digest {
                    *current = loaded;
                    (trouble.reloads, trouble.complained) = (trouble.reloads + 1, None);
                    let expires = current.expires.0;
                    tracing::info!(certificate, expires, "certificate reloaded");
                }
            }
            Err(error) => {
                let error = error.to_string();
                let mut trouble = self.trouble.lock();
                if trouble.last_error.as_deref() != Some(&error) {
                    tracing::error!(certificate, error, "the old certificate stays in use");
                    (trouble.failures, trouble.last_error) = (trouble.failures + 1, Some(error));
                }
            }
        }
    }

    fn complain(&self, now: UnixSeconds, warning: Duration) {
        let left_s = self.expires().0.saturating_sub(now.0);
        let mut trouble = self.trouble.lock();
        let lately = trouble.complained.is_some_and(|at| at.elapsed() < NAG_INTERVAL);
        if left_s > warning.as_secs() || lately {
            return;
        }
        trouble.complained = Some(Instant::now());
        let certificate = self.label;
        if left_s == 0 {
            tracing::error!(certificate, "the certificate has expired: connections are refused");
        } else {
            tracing::warn!(certificate, left_s, left_days = left_s / DAY_S, "certificate expires");
        }
    }

    fn reloads(&self) -> (u64, u64) {
        let trouble = self.trouble.lock();
        (trouble.reloads, trouble.failures)
    }
}

/// Looks at the files of `all` every `poll` and whenever `asked`, for ever.
pub(super) async fn follow(
    all: Vec<Arc<dyn Follow>>,
    poll: Duration,
    warning: Duration,
    environment: Environment,
    asked: Arc<Notify>,
) {
    loop {
        for credentials in &all {
            credentials.complain(environment.clock.now().to_seconds(), warning);
        }
        tokio::select! {
            () = sleep(poll) => {}
            () = asked.notified() => tracing::info!("asked to look at the certificates"),
        }
        for credentials in &all {
            let credentials = Arc::clone(credentials);
            if environment.blocking.run(move || credentials.look()).await.is_err() {
                tracing::error!("looking at a certificate failed");
            }
        }
    }
}

/// Shows every certificate as metrics.
pub(super) struct Collector(pub(super) Vec<Arc<dyn Follow>>);

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Collector")
    }
}

impl Collect for Collector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "When the certificate expires, in seconds since 1970";
        let name = "oncekey_certificate_expiry_timestamp";
        let unit = Some(&Unit::Seconds);
        let mut family = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for credentials in &self.0 {
            let expires = i64::try_from(credentials.expires().0).unwrap_or(i64::MAX);
            let labels = [("certificate", credentials.label())];
            ConstGauge::new(expires).encode(family.encode_family(&labels)?)?;
        }
        let help = "Certificates taken up anew, or refused while the old one stays";
        let mut family = encoder.encode_descriptor(
            "oncekey_certificate_reloads",
            help,
            None,
            MetricType::Counter,
        )?;
        for credentials in &self.0 {
            let (taken, refused) = credentials.reloads();
            for (result, number) in [("taken", taken), ("refused", refused)] {
                let labels = [("certificate", credentials.label()), ("result", result)];
                ConstCounter::new(number).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
