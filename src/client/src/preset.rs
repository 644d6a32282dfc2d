//! Two ways to behave, for applications that do not want to decide everything one by one.
//!
//! | | [`AvailabilityFirst`](Preset::AvailabilityFirst) | [`SecurityFirst`](Preset::SecurityFirst) |
//! |---|---|---|
//! | a bundle without one-time prekey | used | refused |
//! | devices that an account adds | written to, and shown | written to when the user says so |
//! | signed prekey replaced after | 7 days | 1 day |
//! | signed prekey signed as valid for | 90 days | 21 days |
//! | its secret kept after it was replaced | 30 days | 7 days |
//! | pool lasts for an absence of | 14 days | 21 days |
//!
//! What [`AvailabilityFirst`](Preset::AvailabilityFirst) gives up:
//!
//! * A first message without one-time prekey can be read by whoever later takes both the identity
//!   key and the signed prekey of its receiver, who holds that for up to 37 days and longer while
//!   it is away. A server can see to it that a message is of that kind.
//! * Whoever takes a signed prekey can pose as anyone to its owner for as long.
//! * A stolen account key adds a device that is written to until someone looks.
//!
//! What [`SecurityFirst`](Preset::SecurityFirst) gives up:
//!
//! * Nobody can start a conversation while the receiver's pool is empty, which a stranger can
//!   bring about within the servers' limits, or while no quorum of servers is within reach.
//! * A device that is away for more than 21 days cannot be written to until it is back, and first
//!   messages that arrive more than 7 days after their signed prekey was replaced are lost.
//! * A new device of a contact reads nothing until the user has answered.
//!
//! Guarantees: a preset is a plain [`Config`]; every field of it can be changed. Leaves out: how a
//! key store is locked, and backups; both presets have the same.

use std::{fmt, str::FromStr, time::Duration};

use crate::{
    client::Config,
    machine::{Demand, Lifetimes, PoolPlan},
    trust::NewDevices,
};

const DAY_S: u64 = 24 * 60 * 60;

/// What goes first when both cannot be had; see the [module](self).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Preset {
    /// Messages get through. What [`Config::default`] gives.
    #[default]
    AvailabilityFirst,
    /// Messages get through protected in full, or not at all.
    SecurityFirst,
}

/// The name is not that of a preset.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a preset is availability-first or security-first")]
pub struct NotAPreset;

impl Preset {
    /// Both, the default first.
    pub const ALL: [Self; 2] = [Self::AvailabilityFirst, Self::SecurityFirst];

    /// What a device that lives by this preset expects of its pool.
    #[must_use]
    pub fn demand(self) -> Demand {
        match self {
            Self::AvailabilityFirst => Demand::default(),
            // As long as its signed prekey is valid.
            Self::SecurityFirst => {
                Demand { offline: Duration::from_secs(21 * DAY_S), ..Demand::default() }
            }
        }
    }

    /// The configuration, with the clock of the machine.
    #[must_use]
    pub fn config(self) -> Config {
        match self {
            Self::AvailabilityFirst => Config::default(),
            Self::SecurityFirst => Config {
                lifetimes: Lifetimes {
                    rotate_after_s: DAY_S,
                    valid_for_s: 21 * DAY_S,
                    retain_for_s: 7 * DAY_S,
                },
                pool: PoolPlan::new(&self.demand()),
                new_devices: NewDevices::Questioned,
                require_opk: true,
                ..Config::default()
            },
        }
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AvailabilityFirst => "availability-first",
            Self::SecurityFirst => "security-first",
        })
    }
}

impl FromStr for Preset {
    type Err = NotAPreset;

    fn from_str(name: &str) -> Result<Self, NotAPreset> {
        Self::ALL.into_iter().find(|preset| preset.to_string() == name).ok_or(NotAPreset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preset_is_read_from_its_own_name() {
        for preset in Preset::ALL {
            assert_eq!(preset.to_string().parse(), Ok(preset));
        }
        assert_eq!("security".parse::<Preset>(), Err(NotAPreset));
    }

    /// A device must be reachable, and able to open, for as long as its pool is meant to last.
    #[test]
    fn the_lifetimes_of_a_preset_fit_its_pool() {
        for preset in Preset::ALL {
            let Config { lifetimes, pool, .. } = preset.config();
            assert!(lifetimes.rotate_after_s < lifetimes.valid_for_s, "{preset}");
            assert!(pool.covers_s <= lifetimes.valid_for_s, "{preset}");
            assert_eq!(pool.covers_s, preset.demand().offline.as_secs(), "{preset}");
        }
    }

    #[test]
    fn the_documented_days_are_those_of_the_configuration() {
        let days = |preset: Preset| {
            let Config { lifetimes, pool, .. } = preset.config();
            let Lifetimes { rotate_after_s, valid_for_s, retain_for_s } = lifetimes;
            [rotate_after_s, valid_for_s, retain_for_s, pool.covers_s].map(|s| s / DAY_S)
        };
        assert_eq!(days(Preset::AvailabilityFirst), [7, 90, 30, 14]);
        assert_eq!(days(Preset::SecurityFirst), [1, 21, 7, 21]);
    }
}
