//! Byte fields as one run of bytes.
//!
//! Guarantees: with `#[serde(with = "crate::octets")]` a byte vector or array is written by one
//! `serialize_bytes`. Without it serde writes a sequence, element by element. Leaves out: limits on
//! the length; the codec bounds the whole value.

use core::{fmt, marker::PhantomData};

use serde::{Deserializer, Serializer, de};

pub(crate) fn serialize<T: AsRef<[u8]>, S: Serializer>(
    value: &T,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(value.as_ref())
}

pub(crate) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: for<'a> TryFrom<&'a [u8]>,
    D: Deserializer<'de>,
{
    deserializer.deserialize_bytes(Octets(PhantomData))
}

struct Octets<T>(PhantomData<T>);

impl<T: for<'a> TryFrom<&'a [u8]>> de::Visitor<'_> for Octets<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes of the right length")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<T, E> {
        T::try_from(bytes).map_err(|_| E::invalid_length(bytes.len(), &self))
    }
}
