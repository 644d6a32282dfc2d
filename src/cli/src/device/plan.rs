//! `oncekey device plan`: the formula of a pool, with its numbers.

use std::{
    fmt::{self, Display},
    time::Duration,
};

use anyhow::Result;
use oncekey_client::{Demand, PoolPlan, machine::Working};
use serde::Serialize;

use super::{args::Plan, report::Output};

const HOUR_S: u64 = 60 * 60;
const DAY_S: u64 = 24 * HOUR_S;

pub(super) fn run(arguments: &Plan, output: &Output) -> Result<()> {
    let demand = Demand {
        arrivals_per_day: arguments.arrivals_per_day,
        offline: Duration::from_secs(u64::from(arguments.offline_days) * DAY_S),
        upload_every: Duration::from_secs(u64::from(arguments.upload_every_hours) * HOUR_S),
    };
    let demand = match (arguments.taken, arguments.over_days) {
        (Some(taken), Some(days)) => {
            demand.observed(taken, Duration::from_secs(u64::from(days) * DAY_S))
        }
        _ => demand,
    };
    let working = PoolPlan::working(&demand);
    output.show(&Shown {
        arrivals_per_day: demand.arrivals_per_day,
        offline_s: demand.offline.as_secs(),
        upload_every_s: demand.upload_every.as_secs(),
        expected: working.expected,
        watermark: working.plan.watermark,
        batch: working.plan.batch,
        target: working.plan.target,
        covers_s: working.plan.covers_s,
        working,
    })
}

#[derive(Serialize)]
struct Shown {
    arrivals_per_day: u32,
    offline_s: u64,
    upload_every_s: u64,
    expected: u64,
    watermark: u32,
    batch: u32,
    target: u32,
    covers_s: u64,
    #[serde(skip)]
    working: Working,
}

impl Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.working.fmt(f)
    }
}
