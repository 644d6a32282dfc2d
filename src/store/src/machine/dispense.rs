//! Handing out bundles.
//!
//! Guarantees: everything is decided before the first key is popped. Leaves out: the answer when
//! there is no quorum; that is a query, [`Query::Peek`](crate::query::Query::Peek).

use oncekey_types::DeviceId;

use super::{Machine, Stop, check, limit::Tokens, missing};
use crate::{
    command::Dispense,
    digest,
    outcome::{Bundle, Dispensed, Issue, Outcome, Refusal},
    record::{Kind, account::Account, device::Device, pool::Cursor},
    state::StateRead,
};

/// A device that a bundle is asked for.
struct Target {
    device: DeviceId,
    record: Device,
    cursor: Cursor,
}

impl Target {
    fn is_exhausted(&self) -> bool {
        self.cursor.count == 0
    }
}

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
        let digest = digest::dispense(command);
        if let Some(dispensed) = self.remembered(command, &digest)? {
            return Ok(Outcome::Dispensed(dispensed));
        }
        let account = self.account(&command.user)?;
        let targets = self.targets(command, &account)?;
        let decision = if targets.iter().all(Target::is_exhausted) {
            Decision::NothingToIssue
        } else {
            self.tokens(command)?.map_or(Decision::Withhold, Decision::Issue)
        };
        if command.require_one_time_prekey {
            require_all(&targets, &decision)?;
        }

        // From here on the command is accepted.
        let bundles = self.issue(command, targets, decision)?;
        let dispensed = Dispensed {
            index: self.index,
            repeated: false,
            device_list_seq: account.list.map(|list| list.seq),
            bundles,
        };
        self.remember(command, digest, &dispensed)?;
        Ok(Outcome::Dispensed(dispensed))
    }

    fn targets(&mut self, command: &Dispense, account: &Account) -> Result<Vec<Target>, Stop> {
        let devices = command.devices.as_ref().unwrap_or(&account.devices);
        let mut targets = Vec::with_capacity(devices.len());
        for &device in devices {
            if account.devices.binary_search(&device).is_err() {
                return Err(Refusal::UnknownDevice { device }.into());
            }
            let found = self.find_device(&command.user, device)?;
            let (record, cursor) = found.ok_or_else(|| missing(Kind::Device))?;
            targets.push(Target { device, record, cursor });
        }
        Ok(targets)
    }

    fn issue(
        &mut self,
        command: &Dispense,
        targets: Vec<Target>,
        decision: Decision,
    ) -> Result<Vec<Bundle>, Stop> {
        let withheld = matches!(decision, Decision::Withhold);
        if let Decision::Issue(tokens) = decision {
            self.take(tokens)?;
        }
        let mut bundles = Vec::with_capacity(targets.len());
        for mut target in targets {
            let one_time_prekey = if withheld {
                Issue::Withheld
            } else if target.is_exhausted() {
                Issue::Exhausted
            } else {
                let cursor = &mut target.cursor;
                Issue::Issued(self.pop_key(&command.user, target.device, cursor)?)
            };
            bundles.push(Bundle {
                device: target.device,
                registration: target.record.registration(),
                identity_key: target.record.identity_key,
                signed_prekey: target.record.signed_prekey,
                one_time_prekey,
            });
        }
        Ok(bundles)
    }
}

/// Refuses when a device would get no key.
fn require_all(targets: &[Target], decision: &Decision) -> Result<(), Refusal> {
    let withheld = matches!(decision, Decision::Withhold);
    match targets.iter().find(|target| withheld || target.is_exhausted()) {
        None => Ok(()),
        Some(target) => Err(Refusal::OneTimePreKeyRequired { device: target.device, withheld }),
    }
}
