//! The records of the state, opened to the fuzz targets. What else this crate decodes is public.

use crate::{
    command::DeviceList,
    record::{
        Kind, Value, account::Account, device::Device, meta::Meta, pool::Lot, queue::QueueLot,
        retry::Retry,
    },
};

/// The value of the record, decoded and encoded again; none when the record is refused.
#[must_use]
pub fn record_again(key: &[u8], value: &[u8]) -> Option<Vec<u8>> {
    let kind = Kind::of(key)?;
    kind.check(key, value).ok()?;
    match kind {
        Kind::Meta => again::<Meta>(value),
        Kind::Account => again::<Account>(value),
        Kind::DeviceList => again::<DeviceList>(value),
        Kind::Device => again::<Device>(value),
        Kind::Lot => again::<Lot>(value),
        Kind::Retry => again::<Retry>(value),
        Kind::Queue => again::<QueueLot>(value),
    }
}

fn again<V: Value>(value: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    V::from_bytes(value).ok()?.append_to(&mut bytes).ok()?;
    Some(bytes)
}
