//! The users that the benchmark publishes, and which of their keys came.
//!
//! Guarantees: each key is asked for once at most, by one claim; a round visits all users, in an
//! order that jumps, before any is visited again; a key that comes twice, or was never published, is
//! noticed at once, at one bit of memory per key. Leaves out: the bytes of the keys. Nobody holds
//! the secrets of prekeys.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use anyhow::Result;
use oncekey_client::machine::Device;
use oncekey_types::{DeviceId, OneTimePreKeyId, UserId, limits};

use super::callers::{self, Callers};

/// The one device of each user.
pub(super) const DEVICE: DeviceId = DeviceId(1);
/// Keys of each user, with the ids from 1. One upload; below what a node hands out of one user at
/// once before it withholds.
pub(super) const KEYS_PER_USER: u32 = 200;

const WORDS_PER_USER: usize = KEYS_PER_USER.div_ceil(u64::BITS) as usize;
/// A prime beyond any number of users: steps of it visit all users before the first one again.
const STRIDE: u64 = 4_294_967_291;

const _: () = assert!(KEYS_PER_USER as usize <= limits::UPLOAD_MAX);

/// All users published so far.
pub(super) struct Population {
    /// Sets the users of this run of the command apart from all others.
    run: u64,
    callers: Arc<Callers>,
    generations: Vec<Arc<Generation>>,
    claims: AtomicU64,
    /// Keys that are never claimed.
    passed_over: u64,
}

/// Users that were published together.
struct Generation {
    /// Number of its first user.
    first: u64,
    users: u64,
    /// A bit for each key that came.
    came: Vec<AtomicU64>,
}

/// The right to ask for one key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Claim {
    /// Differs from the number of every other claim.
    pub(super) number: u64,
    generation: usize,
    /// Position of the user within its generation.
    user: u64,
    /// How many of the user's keys were claimed before.
    pub(super) round: u32,
}

/// What a key that came is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Receipt {
    /// It came for the first time.
    First,
    /// It came before: a double issue.
    Again,
    /// It was never published.
    Foreign,
}

impl Population {
    pub(super) fn new(run: u64) -> Self {
        Self {
            run,
            callers: Arc::new(Callers::Named),
            generations: Vec::new(),
            claims: AtomicU64::new(0),
            passed_over: 0,
        }
    }

    /// The same, asked for by `callers`.
    pub(super) fn asked_by(self, callers: Callers) -> Self {
        Self { callers: Arc::new(callers), ..self }
    }

    /// Who asks.
    pub(super) fn callers(&self) -> &Callers {
        &self.callers
    }

    /// The same with `users` more, which the caller has published.
    pub(super) fn grown(&self, users: u64) -> Self {
        let words = usize::try_from(users).unwrap_or(usize::MAX) * WORDS_PER_USER;
        let came = (0..words).map(|_| AtomicU64::new(0)).collect();
        let mut generations = self.generations.clone();
        generations.push(Arc::new(Generation { first: self.users(), users, came }));
        let claims = self.claims.load(Ordering::Relaxed).min(self.published());
        Self {
            run: self.run,
            callers: Arc::clone(&self.callers),
            generations,
            claims: AtomicU64::new(claims),
            passed_over: self.passed_over,
        }
    }

    /// Lets the next claims be those of the users published last; what is left of the others stays
    /// where it is. Else a few users of old would be all that a short run visits.
    pub(super) fn pass_over_older(&mut self) {
        let newest = self.generations.last().map_or(0, |newest| newest.keys());
        let from = self.published() - newest;
        let claims = self.claims.get_mut();
        self.passed_over += from.saturating_sub(*claims);
        *claims = from.max(*claims);
    }

    /// Users published.
    pub(super) fn users(&self) -> u64 {
        self.generations.iter().map(|generation| generation.users).sum()
    }

    /// Keys published.
    pub(super) fn published(&self) -> u64 {
        self.users() * u64::from(KEYS_PER_USER)
    }

    /// Keys that were not claimed yet.
    pub(super) fn unclaimed(&self) -> u64 {
        self.published().saturating_sub(self.claims.load(Ordering::Relaxed))
    }

    /// Keys that the nodes hold, those in flight aside.
    pub(super) fn stored(&self) -> u64 {
        self.unclaimed() + self.passed_over
    }

    /// The next claim; none when every key is claimed.
    pub(super) fn claim(&self) -> Option<Claim> {
        let number = self.claims.fetch_add(1, Ordering::Relaxed);
        let mut within = number;
        for (position, generation) in self.generations.iter().enumerate() {
            let keys = generation.keys();
            if within < keys {
                let user = within % generation.users * (STRIDE % generation.users);
                let user = user % generation.users;
                let round = u32::try_from(within / generation.users).unwrap_or(u32::MAX);
                return Some(Claim { number, generation: position, user, round });
            }
            within -= keys;
        }
        None
    }

    /// Idempotency key of a claim, and caller, where a name is enough.
    pub(super) fn request(&self, claim: Claim) -> String {
        format!("bench-{:016x}-{}", self.run, claim.number)
    }

    /// The user whose key is claimed.
    pub(super) fn user_of(&self, claim: Claim) -> Result<UserId> {
        self.user(self.generations[claim.generation].first + claim.user)
    }

    /// The user with this number.
    pub(super) fn user(&self, number: u64) -> Result<UserId> {
        Ok(UserId::new(format!("bench-{:016x}-{number}", self.run))?)
    }

    /// The device of the user with this number.
    pub(super) fn device(&self, number: u64) -> Result<Device> {
        Ok(callers::device(self.user(number)?, self.run.wrapping_add(number)))
    }

    /// The key `id` came as the answer to `claim`.
    pub(super) fn receive(&self, claim: Claim, id: OneTimePreKeyId) -> Receipt {
        if !(1..=KEYS_PER_USER).contains(&id.0) {
            return Receipt::Foreign;
        }
        let bit = id.0 - 1;
        let words = self.generations[claim.generation].words(claim.user);
        let word = &words[(bit / u64::BITS) as usize];
        let mask = 1 << (bit % u64::BITS);
        if word.fetch_or(mask, Ordering::Relaxed) & mask == 0 {
            Receipt::First
        } else {
            Receipt::Again
        }
    }

    /// Number and count of keys of each user of whom a key came.
    pub(super) fn visited(&self) -> impl Iterator<Item = (u64, u32)> {
        self.generations.iter().flat_map(|generation| {
            (0..generation.users).filter_map(|user| {
                let words = generation.words(user);
                let count = words.iter().map(|word| word.load(Ordering::Relaxed).count_ones());
                let count = count.sum();
                (count > 0).then_some((generation.first + user, count))
            })
        })
    }
}

impl Generation {
    fn keys(&self) -> u64 {
        self.users * u64::from(KEYS_PER_USER)
    }

    fn words(&self, user: u64) -> &[AtomicU64] {
        let start = usize::try_from(user).unwrap_or(usize::MAX) * WORDS_PER_USER;
        &self.came[start..start + WORDS_PER_USER]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn every_key_is_claimed_once_and_a_round_visits_all_users() {
        let population = Population::new(1).grown(7).grown(12);
        let mut asked = BTreeMap::<UserId, u32>::new();
        for number in 0..population.published() {
            let claim = population.claim().unwrap();
            assert_eq!(claim.number, number);
            let before = asked.entry(population.user_of(claim).unwrap()).or_default();
            assert_eq!(claim.round, *before);
            *before += 1;
            if number == 6 {
                assert_eq!(asked.len(), 7, "{asked:?}");
            }
        }
        assert_eq!(asked.len(), 19);
        assert!(asked.values().all(|keys| *keys == KEYS_PER_USER), "{asked:?}");
        assert_eq!((population.claim(), population.unclaimed()), (None, 0));
    }

    #[test]
    fn claims_that_found_nothing_are_not_lost_when_more_is_published() {
        let population = Population::new(1).grown(1);
        while population.claim().is_some() {}
        let population = population.grown(1);
        assert_eq!(population.unclaimed(), u64::from(KEYS_PER_USER));
        assert_eq!(population.claim().unwrap().number, u64::from(KEYS_PER_USER));
    }

    #[test]
    fn keys_that_are_passed_over_stay_stored_and_are_never_claimed() {
        let keys = u64::from(KEYS_PER_USER);
        let population = Population::new(1).grown(2);
        population.claim().unwrap();
        let mut population = population.grown(3);
        population.pass_over_older();
        assert_eq!((population.unclaimed(), population.stored()), (3 * keys, 5 * keys - 1));
        let mut population = population.grown(1);
        population.pass_over_older();
        population.pass_over_older();
        assert_eq!((population.unclaimed(), population.stored()), (keys, 6 * keys - 1));
        while let Some(claim) = population.claim() {
            assert!(claim.number >= 5 * keys, "{claim:?}");
        }
        assert_eq!(population.stored(), 5 * keys - 1);
    }

    #[test]
    fn a_key_that_comes_twice_is_noticed() {
        let population = Population::new(1).grown(3);
        let (one, other) = (population.claim().unwrap(), population.claim().unwrap());
        for id in 1..=KEYS_PER_USER {
            assert_eq!(population.receive(one, OneTimePreKeyId(id)), Receipt::First, "{id}");
        }
        for id in 1..=KEYS_PER_USER {
            assert_eq!(population.receive(one, OneTimePreKeyId(id)), Receipt::Again, "{id}");
        }
        // The same id of another user is another key.
        assert_eq!(population.receive(other, OneTimePreKeyId(1)), Receipt::First);
        let counts: Vec<_> = population.visited().map(|(_, count)| count).collect();
        assert_eq!(counts.iter().sum::<u32>(), KEYS_PER_USER + 1, "{counts:?}");
        assert_eq!(counts.len(), 2);
    }

    #[test]
    fn a_key_that_was_never_published_is_noticed() {
        let population = Population::new(1).grown(1);
        let claim = population.claim().unwrap();
        for id in [0, KEYS_PER_USER + 1, u32::MAX] {
            assert_eq!(population.receive(claim, OneTimePreKeyId(id)), Receipt::Foreign, "{id}");
        }
    }
}
