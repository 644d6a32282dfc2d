//! What is done to a cluster, by name.

use std::{collections::VecDeque, fmt, str::FromStr};

use rand::{Rng, seq::SliceRandom as _};
use serde::Serialize;

/// A kind of fault.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The leader of a shard is killed at a step of a pop that a failpoint chooses.
    LeaderMidPop,
    /// A node is killed while it votes, after the leader was.
    VoterMidVote,
    /// A node is killed around a checkpoint of its state, before it purges its log.
    MidCheckpoint,
    /// A node that was away for too long is killed when it installs a snapshot.
    MidInstall,
    /// A node is killed.
    Kill,
    /// All nodes are killed at once.
    KillAll,
    /// A node is asked to end, and hands over what it leads.
    Stop,
    /// A node stands still for a while and goes on as if nothing had been.
    Pause,
    /// The nodes fall into two halves.
    Partition,
    /// A node hears the others and they do not hear it, or the other way round.
    OneWay,
    /// A leader is with the minority.
    LeaderCutOff,
    /// Packets are lost.
    Loss,
    /// Packets are late and overtake each other.
    Delay,
    /// The power of a node is cut.
    PowerCut,
    /// The power of all nodes is cut at once.
    PowerCutAll,
    /// A disk is full.
    DiskFull,
    /// Clocks are set, or go wrong.
    Clock,
    /// The state of a node is that of some time ago, its log is not.
    OldState,
    /// The whole disk of a node is that of some time ago.
    OldDisk,
    /// A node loses its disk and is replaced by a new one.
    Replace,
}

impl Fault {
    /// All, in the order in which they are reported.
    pub const ALL: [Self; 20] = [
        Self::LeaderMidPop,
        Self::VoterMidVote,
        Self::MidCheckpoint,
        Self::MidInstall,
        Self::Kill,
        Self::KillAll,
        Self::Stop,
        Self::Pause,
        Self::Partition,
        Self::OneWay,
        Self::LeaderCutOff,
        Self::Loss,
        Self::Delay,
        Self::PowerCut,
        Self::PowerCutAll,
        Self::DiskFull,
        Self::Clock,
        Self::OldState,
        Self::OldDisk,
        Self::Replace,
    ];

    /// Its name on the command line and in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::LeaderMidPop => "leader-mid-pop",
            Self::VoterMidVote => "voter-mid-vote",
            Self::MidCheckpoint => "mid-checkpoint",
            Self::MidInstall => "mid-install",
            Self::Kill => "kill",
            Self::KillAll => "kill-all",
            Self::Stop => "stop",
            Self::Pause => "pause",
            Self::Partition => "partition",
            Self::OneWay => "one-way",
            Self::LeaderCutOff => "leader-cut-off",
            Self::Loss => "loss",
            Self::Delay => "delay",
            Self::PowerCut => "power-cut",
            Self::PowerCutAll => "power-cut-all",
            Self::DiskFull => "disk-full",
            Self::Clock => "clock",
            Self::OldState => "old-state",
            Self::OldDisk => "old-disk",
            Self::Replace => "replace",
        }
    }

    /// Whether it lasts until it is healed, so that another may come on top.
    #[must_use]
    pub const fn lasts(self) -> bool {
        match self {
            Self::Partition
            | Self::OneWay
            | Self::LeaderCutOff
            | Self::Loss
            | Self::Delay
            | Self::Clock => true,
            Self::LeaderMidPop
            | Self::VoterMidVote
            | Self::MidCheckpoint
            | Self::MidInstall
            | Self::Kill
            | Self::KillAll
            | Self::Stop
            | Self::Pause
            | Self::PowerCut
            | Self::PowerCutAll
            | Self::DiskFull
            | Self::OldState
            | Self::OldDisk
            | Self::Replace => false,
        }
    }

    /// Whether it may come on top of another: it is over at once and needs no cluster that works.
    #[must_use]
    pub const fn is_quick(self) -> bool {
        matches!(
            self,
            Self::LeaderMidPop | Self::Kill | Self::Pause | Self::PowerCut | Self::PowerCutAll
        )
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|fault| fault.name() == text).ok_or_else(|| {
            format!("{text:?} is no fault, known are {}", Self::ALL.map(Self::name).join(", "))
        })
    }
}

/// Faults to come: all kinds equally often, in any order.
#[derive(Debug)]
pub(super) struct Deck {
    kinds: Vec<Fault>,
    cards: VecDeque<Fault>,
}

impl Deck {
    pub(super) fn new(kinds: &[Fault]) -> Self {
        Self { kinds: kinds.to_vec(), cards: VecDeque::new() }
    }

    /// The next fault; none when there are none at all.
    pub(super) fn draw(&mut self, rng: &mut impl Rng) -> Option<Fault> {
        self.refill(rng);
        self.cards.pop_front()
    }

    /// The next fault that may come on top of another, if one is near.
    pub(super) fn draw_quick(&mut self, rng: &mut impl Rng) -> Option<Fault> {
        self.refill(rng);
        let place = self.cards.iter().position(|fault| fault.is_quick())?;
        self.cards.remove(place)
    }

    fn refill(&mut self, rng: &mut impl Rng) {
        if self.cards.is_empty() {
            let mut cards = self.kinds.clone();
            cards.shuffle(rng);
            self.cards = cards.into();
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;

    #[test]
    fn every_fault_is_known_by_its_name() {
        for fault in Fault::ALL {
            assert_eq!(fault.name().parse(), Ok(fault));
        }
        assert!("meteor".parse::<Fault>().is_err());
    }

    #[test]
    fn a_deck_has_every_kind_equally_often() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut deck = Deck::new(&Fault::ALL);
        let mut drawn: Vec<_> = (0..3 * Fault::ALL.len())
            .map(|number| match number % 4 {
                0 => deck.draw_quick(&mut rng).or_else(|| deck.draw(&mut rng)).unwrap(),
                _ => deck.draw(&mut rng).unwrap(),
            })
            .collect();
        drawn.sort_unstable();
        let expected: Vec<_> = Fault::ALL.into_iter().flat_map(|fault| [fault; 3]).collect();
        assert_eq!(drawn, expected);
    }
}
