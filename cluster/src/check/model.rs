//! One account as the servers should keep it.
//!
//! Guarantees: [`fits`](Account::fits) says whether an operation gets this answer in this state,
//! and why not; [`apply`](Account::apply) is what the operation does. Pools are first in, first
//! out, ids of one-time prekeys only grow, a registration replaces what was there.
//!
//! Leaves out: limits on callers, so a one-time prekey may be withheld at any time; refusals, which
//! change nothing; time.

use std::collections::{BTreeMap, VecDeque};

use oncekey_types::{DeviceId, OneTimePreKeyId, RegistrationId};

use crate::history::{
    Content, Read, Written,
    record::{Bundle, Digest, Issue, Opk, Spk},
};

/// An account.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) struct Account<'a> {
    devices: BTreeMap<DeviceId, Device<'a>>,
    /// Highest id that any replaced or removed device accepted.
    floor: Option<OneTimePreKeyId>,
    /// The last registration whose number is known.
    last: Option<RegistrationId>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Device<'a> {
    /// Not known when its registration was not answered.
    registration: Option<RegistrationId>,
    identity: Digest,
    spk: Spk,
    highest: Option<OneTimePreKeyId>,
    /// The keys in the pool: what is left of each upload.
    pool: VecDeque<&'a [Opk]>,
}

/// What an operation asks, and what it was answered; without an answer, anything goes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Action<'a> {
    Fetch { devices: Option<&'a [DeviceId]>, answer: Option<&'a [Bundle]> },
    Write { device: DeviceId, content: &'a Content, answer: Option<&'a Written> },
    Read(&'a Read),
}

impl<'a> Account<'a> {
    /// Whether `action` gets its answer in this state.
    ///
    /// # Errors
    ///
    /// Why it does not.
    pub(super) fn fits(&self, action: &Action<'a>) -> Result<(), String> {
        match *action {
            Action::Fetch { answer: None, .. } => Ok(()),
            Action::Fetch { devices, answer: Some(bundles) } => self.fits_fetch(devices, bundles),
            Action::Write { device, content, answer } => self.fits_write(device, content, answer),
            Action::Read(read) => self.fits_read(read),
        }
    }

    /// Does what `action` does.
    pub(super) fn apply(&mut self, action: &Action<'a>) {
        match *action {
            Action::Fetch { answer: Some(bundles), .. } => {
                for bundle in bundles {
                    let Some(device) = self.devices.get_mut(&bundle.device) else { continue };
                    device.registration = Some(bundle.registration);
                    self.last = self.last.max(device.registration);
                    if matches!(bundle.opk, Issue::Issued(_)) {
                        device.pop();
                    }
                }
            }
            Action::Fetch { devices, answer: None } => {
                for (id, device) in &mut self.devices {
                    if devices.is_none_or(|devices| devices.contains(id)) {
                        device.pop();
                    }
                }
            }
            Action::Write { device, content, answer } => self.write(device, content, answer),
            Action::Read(_) => {}
        }
    }

    fn fits_fetch(&self, devices: Option<&[DeviceId]>, bundles: &[Bundle]) -> Result<(), String> {
        let told = bundles.iter().map(|bundle| bundle.device);
        let all = match devices {
            None => told.eq(self.devices.keys().copied()),
            Some(devices) => told.eq(devices.iter().copied()),
        };
        if !all {
            return Err("the bundles are not those of the devices asked for".to_owned());
        }
        bundles.iter().try_for_each(|bundle| self.fits_bundle(bundle))
    }

    fn fits_bundle(&self, bundle: &Bundle) -> Result<(), String> {
        let number = bundle.device;
        let device = self.device(number)?;
        device.is_registered_as(number, bundle.registration)?;
        if device.identity != bundle.identity {
            return Err(format!("device {number} has another identity key"));
        }
        if device.spk != bundle.spk {
            let (has, told) = (device.spk, bundle.spk);
            return Err(format!("device {number} has signed prekey {has}, {told} was told"));
        }
        match (bundle.opk, device.front()) {
            (Issue::Withheld, _) | (Issue::Exhausted, None) => Ok(()),
            (Issue::Issued(key), Some(front)) if key == front => Ok(()),
            (Issue::Issued(key), Some(front)) => Err(format!(
                "the oldest key of device {number} is {}, {} was handed out",
                front.0, key.0
            )),
            (Issue::Issued(key), None) => {
                Err(format!("the pool of device {number} is empty, {} was handed out", key.0))
            }
            (Issue::Exhausted, Some(front)) => Err(format!(
                "the pool of device {number} has key {} and was said to be empty",
                front.0
            )),
            (Issue::Unavailable, _) => {
                Err(format!("the key of device {number} was unavailable in a commit"))
            }
        }
    }

    fn fits_read(&self, read: &Read) -> Result<(), String> {
        let number = read.device;
        let device = self.device(number)?;
        device.is_registered_as(number, read.registration)?;
        let told = read.ids.iter().flat_map(|(first, last)| first.0..=last.0);
        if !told.eq(device.keys().map(|key| key.0.0)) {
            return Err(format!(
                "the pool of device {number} has {} keys, others were told",
                device.count()
            ));
        }
        device.fits_pool(number, device.count(), device.spk, &read.pool)
    }

    fn fits_write(
        &self,
        number: DeviceId,
        content: &Content,
        answer: Option<&Written>,
    ) -> Result<(), String> {
        let pool = answer.and_then(|answer| answer.pool);
        match content {
            Content::Register { spk, opks, .. } => {
                let floor = self.floor.max(self.devices.get(&number).and_then(|it| it.highest));
                grow(number, floor, opks)?;
                let registration = answer.and_then(|answer| answer.registration);
                if registration.is_some() && registration <= self.last {
                    return Err("the number of the registration does not grow".to_owned());
                }
                let count = opks.len();
                let Some(pool) = pool else { return Ok(()) };
                let highest = opks.last().map(|key| key.0).or(floor);
                if usize::try_from(pool.count) != Ok(count)
                    || pool.spk != spk.0
                    || pool.highest != highest
                {
                    return Err(format!("the new pool of device {number} is not what it brought"));
                }
                Ok(())
            }
            Content::Upload { opks } => {
                let device = self.device(number)?;
                grow(number, device.highest, opks)?;
                let Some(pool) = pool else { return Ok(()) };
                let highest = opks.last().map(|key| key.0).or(device.highest);
                let after = Device { highest, ..device.clone() };
                after.fits_pool(number, device.count() + opks.len(), device.spk, &pool)
            }
            Content::Rotate { spk } => {
                let device = self.device(number)?;
                if spk.0 <= device.spk.0 {
                    return Err(format!("device {number} has signed prekey {}", device.spk));
                }
                let Some(pool) = pool else { return Ok(()) };
                device.fits_pool(number, device.count(), *spk, &pool)
            }
            Content::Remove => self.device(number).map(|_| ()),
        }
    }

    fn write(&mut self, number: DeviceId, content: &'a Content, answer: Option<&Written>) {
        match content {
            Content::Register { identity, spk, opks } => {
                let replaced = self.devices.remove(&number);
                let registration = answer.and_then(|answer| answer.registration);
                self.floor = self.floor.max(replaced.and_then(|device| device.highest));
                self.last = self.last.max(registration);
                let device = Device {
                    registration,
                    identity: *identity,
                    spk: *spk,
                    highest: opks.last().map(|key| key.0).or(self.floor),
                    pool: VecDeque::from_iter((!opks.is_empty()).then_some(&**opks)),
                };
                self.devices.insert(number, device);
            }
            Content::Upload { opks } => {
                let Some(device) = self.devices.get_mut(&number) else { return };
                if let Some(last) = opks.last() {
                    device.highest = Some(last.0);
                    device.pool.push_back(opks);
                }
            }
            Content::Rotate { spk } => {
                if let Some(device) = self.devices.get_mut(&number) {
                    device.spk = *spk;
                }
            }
            Content::Remove => {
                let removed = self.devices.remove(&number);
                self.floor = self.floor.max(removed.and_then(|device| device.highest));
            }
        }
    }

    fn device(&self, number: DeviceId) -> Result<&Device<'a>, String> {
        self.devices.get(&number).ok_or_else(|| format!("device {number} is not registered"))
    }
}

impl Device<'_> {
    fn front(&self) -> Option<Opk> {
        self.pool.front().and_then(|keys| keys.first()).copied()
    }

    fn keys(&self) -> impl Iterator<Item = &Opk> {
        self.pool.iter().copied().flatten()
    }

    fn count(&self) -> usize {
        self.pool.iter().map(|keys| keys.len()).sum()
    }

    /// Takes the oldest key, when there is one.
    fn pop(&mut self) {
        let Some(keys) = self.pool.front_mut() else { return };
        *keys = keys.get(1..).unwrap_or_default();
        if keys.is_empty() {
            self.pool.pop_front();
        }
    }

    fn is_registered_as(&self, number: DeviceId, told: RegistrationId) -> Result<(), String> {
        match self.registration {
            Some(is) if is != told => {
                Err(format!("device {number} has registration {is}, {told} was told"))
            }
            _ => Ok(()),
        }
    }

    fn fits_pool(
        &self,
        number: DeviceId,
        count: usize,
        spk: Spk,
        told: &crate::history::record::Pool,
    ) -> Result<(), String> {
        if usize::try_from(told.count) != Ok(count) {
            let told = told.count;
            return Err(format!("the pool of device {number} has {count} keys, {told} were told"));
        }
        if told.spk != spk.0 {
            let told = told.spk;
            return Err(format!("device {number} has signed prekey {spk}, {told} was told"));
        }
        if told.highest != self.highest {
            return Err(format!("device {number} accepted another highest id than was told"));
        }
        Ok(())
    }
}

/// Ids that are accepted are above `highest`.
fn grow(number: DeviceId, highest: Option<OneTimePreKeyId>, opks: &[Opk]) -> Result<(), String> {
    match (highest, opks.first()) {
        (Some(highest), Some(first)) if first.0 <= highest => Err(format!(
            "device {number} accepted id {highest} before, {} was accepted again",
            first.0
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        Invariant::{Search, Witness},
        story::Story,
    };

    #[test]
    fn the_number_of_a_registration_without_an_answer_is_the_one_that_was_told_first() {
        let mut story = Story::with_keys(&[]);
        story.register_without_answer(2, &[1, 2]);
        story.registration = 2;
        story.fetch("a", (3, 4), Some(1));
        story.registration = 3;
        let b = story.fetch("b", (5, 6), Some(2));
        story.breaks(Search, &[b]);
    }

    #[test]
    fn numbers_of_registrations_grow_beyond_one_that_was_told_to_a_fetch() {
        let mut story = Story::with_keys(&[]);
        story.register_without_answer(2, &[1]);
        story.registration = 2;
        story.fetch("a", (3, 4), Some(1));
        let again = story.register((5, 6), 1, &[2]);
        story.breaks(Search, &[again]);
    }

    #[test]
    fn a_fetch_without_an_answer_takes_keys_of_the_devices_that_it_asks_for() {
        for (told, holds) in [([None, Some(1)], true), ([Some(1), None], false)] {
            let mut story = Story::with_keys(&[1]);
            story.registration = 2;
            story.register((2, 3), 2, &[1]);
            story.registration = 1;
            story.fetch_one_without_answer("a", 4, 1);
            let b = story.fetch_all("b", (5, 6), &told);
            if holds { story.holds(Search) } else { story.breaks(Search, &[b]) }
        }
    }

    #[test]
    fn a_registration_that_is_told_more_keys_than_it_brought_is_found() {
        let mut story = Story::with_keys(&[1, 2]);
        story.registration = 2;
        let anew = story.register_counting((2, 3), &[3], 3);
        story.breaks(Witness, &[anew]);
        story.breaks(Search, &[anew]);
    }

    #[test]
    fn a_rotation_to_the_id_of_the_current_signed_prekey_is_found() {
        let mut story = Story::with_keys(&[1]);
        let rotation = story.rotate((2, 3), 1, 1, 1);
        story.breaks(Witness, &[rotation]);
    }

    #[test]
    fn ids_of_a_new_device_at_or_below_those_of_a_replaced_one_are_found() {
        let mut story = Story::with_keys(&[1, 2]);
        story.registration = 2;
        story.register((2, 3), 1, &[3]);
        story.registration = 3;
        let other = story.register((4, 5), 2, &[1]);
        story.breaks(Witness, &[other]);
    }
}
