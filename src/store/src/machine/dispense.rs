//! Handing out bundles.
//!
//! Guarantees: everything is decided before the first key is popped. Leaves out: the answer when
//! there is no quorum; that is a query, [`Query::Peek`](crate::query::Query::Peek).

use oncekey_types::{DeviceId, TimestampMs};

use super::{Machine, Met, Stop, check, limit::Tokens, missing};
use crate::{
    ApplyFault,
    command::{Dispense, SignedPreKey},
    outcome::{Bundle, Dispensed, Issue, Outcome, Refusal},
    record::{
        Kind,
        account::{Account, AccountKey, Enrolled},
        device::{DeviceBundle, DeviceKey},
        retry::RetryKey,
    },
    state::StateRead,
};

/// What is decided about the one-time prekeys of a request.
enum Decision {
    /// Every pool is empty; no token is asked for.
    NothingToIssue,
    /// A limit is reached.
    Withhold,
    /// One key from every pool that is not empty.
    Issue(Tokens),
}

impl<S: StateRead> Machine<'_, S> {
    pub(super) fn dispense(&mut self, command: &Dispense) -> Result<Outcome, Stop> {
        check::dispense(command)?;
        let retry = self.records.find(&RetryKey(&command.caller, &command.request))?;
        if let Some(dispensed) = self.remembered(command, retry)? {
            return Ok(Outcome::Dispensed(dispensed));
        }
        let slot = self.records.find(&AccountKey(&command.user))?;
        let mut account = self.records.value(slot)?.unwrap_or_default();
        all_are_known(command, &account)?;
        let decision = if targets(command, &account).all(is_exhausted) {
            Decision::NothingToIssue
        } else {
            self.tokens(command, &account).map_or(Decision::Withhold, Decision::Issue)
        };
        if command.require_one_time_prekey {
            require_all(command, &account, &decision)?;
        }

        // From here on the command is accepted.
        let bundles = self.issue(command, &mut account, &decision)?;
        if let Decision::Issue(tokens) = &decision {
            self.take(&mut account, tokens);
            self.records.set(slot, &account)?;
        }
        let dispensed = Dispensed {
            index: self.index,
            repeated: false,
            device_list_seq: account.list,
            bundles,
        };
        Ok(Outcome::Dispensed(self.remember(command, retry, dispensed)?))
    }

    /// The bundles, with their keys popped as decided. The account is left for the caller to write.
    fn issue(
        &mut self,
        command: &Dispense,
        account: &mut Account,
        decision: &Decision,
    ) -> Result<Vec<Bundle>, ApplyFault> {
        let withheld = matches!(decision, Decision::Withhold);
        let mut bundles = Vec::with_capacity(account.devices.len());
        for enrolled in &mut account.devices {
            let device = enrolled.device;
            if !is_asked(command, device) {
                continue;
            }
            let slot = self.records.find(&DeviceKey(&command.user, device))?;
            let bytes = self.records.bytes(slot).ok_or_else(|| missing(Kind::Device))?;
            let DeviceBundle { registration, identity_key, signed_prekey } =
                DeviceBundle::of_device(bytes)?;
            let one_time_prekey = if withheld {
                Issue::Withheld
            } else if is_exhausted(enrolled) {
                Issue::Exhausted
            } else {
                Issue::Issued(self.pop_key(&command.user, device, &mut enrolled.cursor)?)
            };
            self.met.push(met(self.now(), enrolled.cursor.count, &signed_prekey));
            bundles.push(Bundle {
                device,
                registration,
                identity_key,
                signed_prekey,
                one_time_prekey,
            });
        }
        Ok(bundles)
    }
}

fn met(now: TimestampMs, left: u32, signed_prekey: &SignedPreKey) -> Met {
    let now_s = now.0 / 1000;
    Met {
        left,
        signed_prekey_age_s: now_s.saturating_sub(signed_prekey.created.0),
        signed_prekey_expired: signed_prekey.expires.0 <= now_s,
    }
}

fn is_asked(command: &Dispense, device: DeviceId) -> bool {
    command.devices.as_ref().is_none_or(|named| named.binary_search(&device).is_ok())
}

fn is_exhausted(enrolled: &Enrolled) -> bool {
    enrolled.cursor.count == 0
}

/// The devices that bundles are asked for.
fn targets<'a>(command: &Dispense, account: &'a Account) -> impl Iterator<Item = &'a Enrolled> {
    account.devices.iter().filter(|enrolled| is_asked(command, enrolled.device))
}

/// Refuses when the user has no device, or not one that is named.
fn all_are_known(command: &Dispense, account: &Account) -> Result<(), Refusal> {
    if account.devices.is_empty() {
        return Err(Refusal::UnknownUser);
    }
    match command.devices.iter().flatten().find(|device| !account.has(**device)) {
        None => Ok(()),
        Some(&device) => Err(Refusal::UnknownDevice { device }),
    }
}

/// Refuses when a device would get no key.
fn require_all(command: &Dispense, account: &Account, decision: &Decision) -> Result<(), Refusal> {
    let withheld = matches!(decision, Decision::Withhold);
    match targets(command, account).find(|target| withheld || is_exhausted(target)) {
        None => Ok(()),
        Some(target) => Err(Refusal::OneTimePreKeyRequired { device: target.device, withheld }),
    }
}
