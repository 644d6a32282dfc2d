//! The chain of signed device lists of a user.
//!
//! Guarantees: the first list fixes the account key; each list is one position behind the last and
//! names its hash. A re-send of the last list is answered as before. Leaves out: the content of a
//! list and its signature.

use oncekey_types::{Seq, UserId};

use super::{Machine, Stop, check};
use crate::{
    ApplyFault,
    command::{DeviceList, PutDeviceList},
    outcome::{Outcome, Refusal},
    record::account::{AccountKey, DeviceListKey, ListHead},
    state::StateRead,
};

impl<S: StateRead> Machine<'_, S> {
    pub(super) fn put_device_list(&mut self, command: &PutDeviceList) -> Result<Outcome, Stop> {
        let (user, list) = (&command.user, &command.list);
        check::device_list(list)?;
        let mut account = self.account(user)?;
        self.check_list(user, account.list.as_ref(), list)?;

        // From here on the command is accepted.
        account.list = Some(self.write_list(user, list)?);
        self.records.write(&AccountKey(user.clone()), &account)?;
        Ok(Outcome::DeviceListPut { seq: list.seq })
    }

    /// Whether `list` is the next one after `head`, or the same once more.
    pub(super) fn check_list(
        &mut self,
        user: &UserId,
        head: Option<&ListHead>,
        list: &DeviceList,
    ) -> Result<(), Stop> {
        let (expected, prev_hash) = match head {
            None => (Seq(1), [0; 32]),
            Some(head) if head.account_key != list.account_key => {
                return Err(Refusal::DeviceListOtherAccount.into());
            }
            Some(head) if head.seq == list.seq && head.hash == list.hash => {
                let stored = self.records.read(&DeviceListKey(user.clone()))?;
                if stored.as_ref() == Some(list) {
                    return Ok(());
                }
                (Seq(head.seq.0.saturating_add(1)), head.hash)
            }
            Some(head) => (Seq(head.seq.0.saturating_add(1)), head.hash),
        };
        if list.seq != expected {
            return Err(Refusal::DeviceListOutOfOrder { given: list.seq, expected }.into());
        }
        if list.prev_hash != prev_hash {
            return Err(Refusal::DeviceListBrokenChain.into());
        }
        Ok(())
    }

    /// Writes a list that was checked; the head goes into the account.
    pub(super) fn write_list(
        &mut self,
        user: &UserId,
        list: &DeviceList,
    ) -> Result<ListHead, ApplyFault> {
        self.records.write(&DeviceListKey(user.clone()), list)?;
        let account_key = list.account_key.clone();
        Ok(ListHead { account_key, seq: list.seq, hash: list.hash })
    }
}
