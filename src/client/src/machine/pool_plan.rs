//! How many one-time prekeys a device keeps out, and when it adds more.
//!
//! With λ fetches a day that take a key, away for up to T days, and an upload every U days:
//!
//! ```text
//! expected  m = ⌈λ·T⌉
//! watermark W = m + ⌈4·√m⌉ + 4
//! batch     B = max(⌈λ·U⌉, 10), at most 200
//! target      = W + B, at most 1000
//! ```
//!
//! Fetches of strangers come independently, so their number in T days has a Poisson distribution
//! with mean m and deviation √m. A device that goes away just above the watermark runs dry in less
//! than one of 10,000 absences of length T: four deviations cover a large m, the constant a small
//! one. While it is online it adds keys once in U days.
//!
//! Guarantees: integers only; larger demand never gives a smaller plan. When the limit of a pool
//! is smaller than the plan, [`PoolPlan::covers_s`] says how long the pool lasts.
//!
//! Leaves out: fetches that are not independent, as in an attack on the pool; the servers' rate
//! limits are the answer to those. A device whose pool is dry can still be written to.

use std::{fmt, time::Duration};

use oncekey_types::limits;

const DAY_S: u64 = 24 * 60 * 60;
const BATCH_MIN: u64 = 10;
const DEVIATIONS: u64 = 4;
const MARGIN: u64 = 4;

/// What a device expects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Demand {
    /// Fetches a day that take a one-time prekey: new contacts, and new devices of old ones.
    pub arrivals_per_day: u32,
    /// The longest absence to prepare for.
    pub offline: Duration,
    /// How often the device may upload while it is online.
    pub upload_every: Duration,
}

impl Default for Demand {
    /// 3 a day, two weeks away, one upload a day.
    fn default() -> Self {
        Self {
            arrivals_per_day: 3,
            offline: Duration::from_secs(14 * DAY_S),
            upload_every: Duration::from_secs(DAY_S),
        }
    }
}

impl Demand {
    /// The arrival rate of a device whose pool lost `taken` keys in the time `over`, rounded up.
    #[must_use]
    pub fn observed(self, taken: u32, over: Duration) -> Self {
        let per_day = u64::from(taken).saturating_mul(DAY_S).div_ceil(over.as_secs().max(1));
        Self { arrivals_per_day: u32::try_from(per_day).unwrap_or(u32::MAX), ..self }
    }

    /// Arrivals in the time `over`, rounded up.
    fn arrivals(self, over: Duration) -> u64 {
        u64::from(self.arrivals_per_day).saturating_mul(over.as_secs()).div_ceil(DAY_S)
    }
}

/// When to add one-time prekeys, and how many; see the [module](self) for the formula.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PoolPlan {
    /// At or below this count the device adds keys.
    pub watermark: u32,
    /// How many keys an upload adds when the pool is at the watermark.
    pub batch: u32,
    /// The count after an upload.
    pub target: u32,
    /// For how long the watermark lasts, in seconds. Shorter than the absence that was asked for
    /// when the limit of a pool cuts the plan.
    pub covers_s: u64,
}

impl Default for PoolPlan {
    /// For the default [`Demand`].
    fn default() -> Self {
        Self::new(&Demand::default())
    }
}

/// How a plan follows from a demand. Displays the formula with the numbers put in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Working {
    /// What was asked for.
    pub demand: Demand,
    /// m: arrivals expected in the longest absence.
    pub expected: u64,
    /// ⌈4·√m⌉.
    pub deviations: u64,
    /// m + ⌈4·√m⌉ + 4, before the limit of a pool.
    pub wanted: u64,
    /// ⌈λ·U⌉: arrivals between two uploads.
    pub between_uploads: u64,
    /// What comes of it.
    pub plan: PoolPlan,
}

impl PoolPlan {
    /// The plan for `demand`, with the steps that lead to it.
    #[must_use]
    pub fn working(demand: &Demand) -> Working {
        let expected = demand.arrivals(demand.offline);
        Working {
            demand: *demand,
            expected,
            deviations: deviations(expected),
            wanted: watermark(expected),
            between_uploads: demand.arrivals(demand.upload_every),
            plan: Self::new(demand),
        }
    }

    /// The plan for `demand`.
    #[must_use]
    pub fn new(demand: &Demand) -> Self {
        let most = u64::try_from(limits::POOL_MAX).unwrap_or(u64::MAX);
        let upload = u64::try_from(limits::UPLOAD_MAX).unwrap_or(u64::MAX);
        let batch = demand.arrivals(demand.upload_every).clamp(BATCH_MIN, upload);
        let wanted = watermark(demand.arrivals(demand.offline));
        let watermark = wanted.min(most - batch);
        let covers_s =
            if watermark == wanted { demand.offline.as_secs() } else { covered(demand, watermark) };
        let count = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        Self {
            watermark: count(watermark),
            batch: count(batch),
            target: count(watermark + batch),
            covers_s,
        }
    }

    /// How many keys to add to a pool of `count`: none above the watermark.
    #[must_use]
    pub fn missing(&self, count: u32) -> u32 {
        if count > self.watermark { 0 } else { self.target - count }
    }
}

impl fmt::Display for PoolPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { watermark, batch, target, covers_s } = self;
        let lasts = Days(*covers_s);
        write!(f, "watermark {watermark}, batch {batch}, target {target}, lasts {lasts} away")
    }
}

impl fmt::Display for Working {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { demand, expected: m, deviations, wanted, between_uploads, plan } = self;
        let Demand { arrivals_per_day: rate, offline, upload_every } = demand;
        let (offline, upload_every) = (Days(offline.as_secs()), Days(upload_every.as_secs()));
        let PoolPlan { watermark, batch, target, covers_s } = plan;
        let (least, per_upload, pool) = (BATCH_MIN, limits::UPLOAD_MAX, limits::POOL_MAX);
        writeln!(f, "λ = {rate} fetches a day that take a one-time prekey")?;
        writeln!(f, "T = {offline} away at most")?;
        writeln!(f, "U = {upload_every} between two uploads")?;
        writeln!(f)?;
        writeln!(f, "expected  m = ⌈λ·T⌉ = {m}")?;
        writeln!(f, "watermark W = m + ⌈4·√m⌉ + 4 = {m} + {deviations} + {MARGIN} = {wanted}")?;
        writeln!(
            f,
            "batch     B = max(⌈λ·U⌉, {least}), at most {per_upload}, = max({between_uploads}, {least}) = {batch}"
        )?;
        writeln!(f, "target      = W + B, at most {pool}, = {watermark} + {batch} = {target}")?;
        writeln!(f)?;
        if wanted > &u64::from(*watermark) {
            writeln!(
                f,
                "A pool holds {pool} at most, so the watermark is {watermark}, not {wanted}."
            )?;
        }
        write!(
            f,
            "At {watermark} or below the device adds keys up to {target}. One that goes away for {} \
             just above\nthe watermark finds its pool empty after less than one of 10,000 such absences.",
            Days(*covers_s)
        )
    }
}

/// Seconds, shown as days and hours.
struct Days(u64);

impl fmt::Display for Days {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} d {} h", self.0 / DAY_S, self.0 % DAY_S / 3600)
    }
}

/// The watermark for `expected` arrivals.
fn watermark(expected: u64) -> u64 {
    expected.saturating_add(deviations(expected)).saturating_add(MARGIN)
}

/// Four times the root of `expected`, rounded up.
fn deviations(expected: u64) -> u64 {
    let squared = expected.saturating_mul(DEVIATIONS * DEVIATIONS);
    let root = squared.isqrt();
    root + u64::from(root * root < squared)
}

/// The longest time whose watermark is at most `held`, by bisection.
fn covered(demand: &Demand, held: u64) -> u64 {
    let (mut covers, mut too_long) = (0, demand.offline.as_secs());
    while covers + 1 < too_long {
        let middle = covers + (too_long - covers) / 2;
        if watermark(demand.arrivals(Duration::from_secs(middle))) <= held {
            covers = middle;
        } else {
            too_long = middle;
        }
    }
    covers
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn demand(arrivals_per_day: u32, offline_days: u64) -> Demand {
        let offline = Duration::from_secs(offline_days * DAY_S);
        Demand { arrivals_per_day, offline, ..Demand::default() }
    }

    /// P(N > k) for a Poisson variable of mean `m`.
    fn tail(m: f64, k: u32) -> f64 {
        let mut term = (-m).exp();
        let mut below = term;
        for i in 1..=k {
            term *= m / f64::from(i);
            below += term;
        }
        (1.0 - below).max(0.0)
    }

    #[test]
    fn a_device_at_the_watermark_runs_dry_in_less_than_one_of_ten_thousand_absences() {
        // Beyond 700 the first term is no longer a normal number.
        for expected in 1u32..=700 {
            let watermark = u32::try_from(watermark(expected.into())).unwrap();
            let dry = tail(f64::from(expected), watermark);
            assert!(dry < 1e-4, "{expected} expected, {watermark} held: {dry}");
        }
    }

    #[test]
    fn the_documented_example_comes_out() {
        let plan = PoolPlan::default();
        // m = 42, √(16·42) = 25.9…
        assert_eq!(plan, PoolPlan { watermark: 72, batch: 10, target: 82, covers_s: 14 * DAY_S });
        assert_eq!(plan.to_string(), "watermark 72, batch 10, target 82, lasts 14 d 0 h away");
        assert_eq!((plan.missing(73), plan.missing(72), plan.missing(0)), (0, 10, 82));
    }

    #[test]
    fn the_formula_is_shown_with_its_numbers() {
        let shown = PoolPlan::working(&Demand::default()).to_string();
        for line in [
            "λ = 3 fetches a day that take a one-time prekey",
            "T = 14 d 0 h away at most",
            "watermark W = m + ⌈4·√m⌉ + 4 = 42 + 26 + 4 = 72",
            "batch     B = max(⌈λ·U⌉, 10), at most 200, = max(3, 10) = 10",
            "target      = W + B, at most 1000, = 72 + 10 = 82",
        ] {
            assert!(shown.lines().any(|shown| shown == line), "no {line:?} in\n{shown}");
        }
        assert!(!shown.contains("A pool holds"), "{shown}");
        let cut = PoolPlan::working(&demand(500, 30)).to_string();
        assert!(cut.contains("so the watermark is 800, not 15494."), "{cut}");
    }

    #[test]
    fn a_plan_that_the_limit_cuts_says_how_long_it_lasts() {
        let plan = PoolPlan::new(&demand(500, 30));
        assert_eq!(plan.target, 1000);
        assert_eq!(plan.batch, 200);
        let days = plan.covers_s as f64 / DAY_S as f64;
        // 800 = m + 4·√m + 4 has m = 690.
        assert!((1.3..1.4).contains(&days), "{days}");
    }

    #[test]
    fn a_rate_is_observed_and_rounded_up() {
        let week = Duration::from_secs(7 * DAY_S);
        assert_eq!(Demand::default().observed(70, week).arrivals_per_day, 10);
        assert_eq!(Demand::default().observed(71, week).arrivals_per_day, 11);
        assert_eq!(Demand::default().observed(0, week).arrivals_per_day, 0);
        assert_eq!(Demand::default().observed(1, Duration::ZERO).arrivals_per_day, 86_400);
    }

    proptest! {
        #[test]
        fn a_plan_keeps_the_limits_and_grows_with_the_demand(
            rate: u32, more: u32, days in 0u64..10_000, upload_s: u32,
        ) {
            let upload_every = Duration::from_secs(upload_s.into());
            let demand = Demand { upload_every, ..demand(rate, days) };
            let plan = PoolPlan::new(&demand);
            prop_assert!(plan.target as usize <= limits::POOL_MAX);
            prop_assert!(plan.batch as usize <= limits::UPLOAD_MAX);
            prop_assert_eq!(plan.target, plan.watermark + plan.batch);
            prop_assert!(plan.covers_s <= days * DAY_S);
            let larger = Demand { arrivals_per_day: rate.saturating_add(more), ..demand };
            prop_assert!(PoolPlan::new(&larger).target >= plan.target);
            prop_assert!(PoolPlan::new(&larger).covers_s <= plan.covers_s);
        }
    }
}
