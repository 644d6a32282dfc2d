//! Names of backups.

use core::{fmt, str::FromStr};

/// Names a backup; drawn when it is made. Its text is 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BackupId(pub [u8; 16]);

/// The text is not the name of a backup.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoBackupId;

impl fmt::Display for NoBackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("is not the name of a backup, 32 hexadecimal digits")
    }
}

impl core::error::Error for NoBackupId {}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for BackupId {
    type Err = NoBackupId;

    fn from_str(text: &str) -> Result<Self, NoBackupId> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 32 || !text.bytes().all(is_digit) {
            return Err(NoBackupId);
        }
        let number = u128::from_str_radix(text, 16).map_err(|_| NoBackupId)?;
        Ok(Self(number.to_be_bytes()))
    }
}

/// As text for people, as bytes for programs.
#[cfg(feature = "serde")]
mod serde_form {
    use alloc::string::String;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    use super::BackupId;

    impl Serialize for BackupId {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            if serializer.is_human_readable() {
                serializer.collect_str(self)
            } else {
                self.0.serialize(serializer)
            }
        }
    }

    impl<'de> Deserialize<'de> for BackupId {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            if deserializer.is_human_readable() {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            } else {
                <[u8; 16]>::deserialize(deserializer).map(Self)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn a_name_comes_back_from_its_text() {
        let name = BackupId(*b"\x00\x01\xffbackup number");
        assert_eq!(name.to_string(), "0001ff6261636b7570206e756d626572");
        assert_eq!(name.to_string().parse(), Ok(name));
        for text in
            ["", "00", "0001FF6261636b7570206e756d626572", "+001ff6261636b7570206e756d626572"]
        {
            assert_eq!(text.parse::<BackupId>(), Err(NoBackupId), "{text}");
        }
    }
}
