//! The chain of signed device lists of a user.
//!
//! Guarantees: the first list fixes the account key; each list is one position behind the last and
//! names its hash. A re-send of the last list is answered as before. In a cluster that was restored,
//! a list may also be further behind: those in between, and perhaps the first, came after the backup
//! and are lost. Leaves out: the content of a list and its signature.

use oncekey_types::{Seq, UserId};

use super::{Machine, Stop, check, missing};
use crate::{
    command::{DeviceList, PutDeviceList},
    outcome::{Outcome, Refusal},
    record::{
        Kind,
        account::{AccountKey, DeviceListKey},
    },
    state::StateRead,
};

impl<S: StateRead> Machine<'_, S> {
    pub(super) fn put_device_list(&mut self, command: &PutDeviceList) -> Result<Outcome, Stop> {
        let (user, list) = (&command.user, &command.list);
        check::device_list(list)?;
        let mut account = self.account(user)?;
        self.check_list(user, account.list, list)?;

        // From here on the command is accepted.
        account.list = Some(list.seq);
        self.records.write(&DeviceListKey(user), list)?;
        self.records.write(&AccountKey(user), &account)?;
        Ok(Outcome::DeviceListPut { seq: list.seq })
    }

    /// Whether `list` is the next one after that at `last`, or the same once more.
    pub(super) fn check_list(
        &mut self,
        user: &UserId,
        last: Option<Seq>,
        list: &DeviceList,
    ) -> Result<(), Stop> {
        let (expected, prev_hash) = match last {
            None => (Seq(1), [0; 32]),
            Some(last) => {
                let stored = self.records.read(&DeviceListKey(user))?;
                let stored = stored.ok_or_else(|| missing(Kind::DeviceList))?;
                if stored == *list {
                    return Ok(());
                }
                if stored.account_key != list.account_key {
                    return Err(Refusal::DeviceListOtherAccount.into());
                }
                (Seq(last.0.saturating_add(1)), stored.hash)
            }
        };
        if list.seq > expected && !self.meta.origin.epoch().is_first() {
            return Ok(());
        }
        if list.seq != expected {
            return Err(Refusal::DeviceListOutOfOrder { given: list.seq, expected }.into());
        }
        if list.prev_hash != prev_hash {
            return Err(Refusal::DeviceListBrokenChain.into());
        }
        Ok(())
    }
}
