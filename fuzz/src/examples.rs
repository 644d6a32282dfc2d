//! A device with fixed keys and what it sends, for seeds.

use std::sync::LazyLock;

use oncekey_client::{
    Lifetimes,
    keystore::DeviceState,
    machine::{Device, ListChange, PinnedDeviceList, Signing},
};
use oncekey_types::{DeviceId, Epoch, OneTimePreKeyId, Seq, SignedPreKeyId, TimestampMs, UserId};
use oncekey_x3dh::keys::AccountKeyPair;
use rand::{SeedableRng as _, rngs::StdRng};

/// When everything happens.
pub(crate) const NOW: TimestampMs = TimestampMs(1_790_000_000_000);

/// Bob's first device; it has his account key.
pub(crate) static DEVICE: LazyLock<Device> = LazyLock::new(|| {
    let rng = &mut rng(1);
    let account = AccountKeyPair::generate(rng);
    Device::generate(bob(), DeviceId(1), Some(account), rng)
});

pub(crate) fn bob() -> UserId {
    UserId::new("bob").expect("it is a name")
}

pub(crate) fn rng(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

pub(crate) fn device_list() -> PinnedDeviceList {
    let add = ListChange::Add(Box::new(DEVICE.listed(NOW)));
    let list = DEVICE.next_device_list(None, &add).expect("it is inside the limits");
    list.expect("the device has the account key")
}

/// The body of its registration.
pub(crate) fn register() -> Vec<u8> {
    let rng = &mut rng(2);
    let at = Signing { now: NOW, lifetimes: &Lifetimes::default(), rng };
    let list = Some(device_list().to_wire());
    DEVICE.register(&state(Seq(0)), None, 2, list, at).expect("nothing is used up").write.body
}

/// The body of an upload after it.
pub(crate) fn replenish() -> Vec<u8> {
    DEVICE.replenish(&state(Seq(1)), 3, &mut rng(3)).expect("nothing is used up").write.body
}

fn state(seq: Seq) -> DeviceState {
    DeviceState {
        epoch: Epoch::FIRST,
        registration: None,
        seq,
        current: None,
        highest_signed_prekey: SignedPreKeyId(0),
        highest_one_time_prekey: OneTimePreKeyId(10 * u32::from(seq > Seq(0))),
        pending: None,
    }
}
