//! What a backup is of, and what belongs to it.
//!
//! Guarantees: a manifest that was changed is found by its checksum, one of a later format by its
//! number, before anything else in it is believed. Leaves out: the files.

use std::{fmt, str::FromStr};

use oncekey_api::cluster::Member;
use oncekey_store::Census;
use oncekey_types::{BackupId, Epoch, LogIndex, ShardId, TimestampMs, limits};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::Digest as _;

/// The format of manifests and files that this program writes and reads.
pub(crate) const FORMAT: u32 = 1;

/// A SHA-256. Its text is 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Digest(pub [u8; 32]);

/// A backup. Unknown members of a later minor version are no error; a format that this program does
/// not know is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// Of the manifest and of the files.
    pub format: u32,
    /// Drawn for this backup.
    pub backup: BackupId,
    /// Name of the cluster.
    pub cluster: String,
    /// The cluster's epoch. One that is made from the backup gets a higher one.
    pub epoch: Epoch,
    /// When it was begun, by the clock of whoever took it.
    pub taken_ms: TimestampMs,
    /// Version of the program that took it.
    pub program: String,
    /// The cluster's nodes at the time. For information.
    pub members: Vec<Member>,
    /// One for each shard, in order.
    pub shards: Vec<ShardFile>,
    /// Over all shards.
    pub totals: Totals,
    /// SHA-256 of this manifest as JSON without spaces and with zeros in this place.
    pub checksum: Digest,
}

/// One shard's file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ShardFile {
    /// The shard.
    pub shard: ShardId,
    /// Name of its file.
    pub file: String,
    /// Log index of the last entry in it.
    pub index: LogIndex,
    /// Length of the file.
    pub bytes: u64,
    /// SHA-256 of the file.
    pub sha256: Digest,
    /// What is in it.
    #[serde(flatten)]
    pub totals: Totals,
}

/// How much there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Users with at least one device.
    pub users: u64,
    /// Their devices.
    pub devices: u64,
    /// One-time prekeys that the cluster could hand out at the time; they are not in the backup.
    pub one_time_prekeys: u64,
}

/// Why a manifest is not to be believed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// It is not one.
    #[error("the manifest is damaged")]
    Malformed(#[source] serde_json::Error),
    /// It is of a format that this program does not know.
    #[error("the backup has format {found}, this program reads format {FORMAT}")]
    Format {
        /// The format found.
        found: u32,
    },
    /// It is not what was written.
    #[error("the manifest is damaged: its checksum is another")]
    Checksum,
    /// Its shards are not those of a cluster.
    #[error("the manifest is damaged: its shards are not numbered from 0")]
    Shards,
}

impl Manifest {
    /// The bytes of the manifest, with its checksum.
    pub(crate) fn encode(mut self) -> Result<(Self, Vec<u8>), serde_json::Error> {
        self.checksum = self.computed()?;
        let bytes = serde_json::to_vec_pretty(&self)?;
        Ok((self, bytes))
    }

    /// The manifest in `bytes`, checked.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        struct AnyFormat {
            format: u32,
        }
        let AnyFormat { format } =
            serde_json::from_slice(bytes).map_err(ManifestError::Malformed)?;
        if format != FORMAT {
            return Err(ManifestError::Format { found: format });
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(ManifestError::Malformed)?;
        if manifest.computed().map_err(ManifestError::Malformed)? != manifest.checksum {
            return Err(ManifestError::Checksum);
        }
        let numbers = manifest.shards.iter().map(|file| file.shard);
        let most = usize::from(limits::SHARDS_MAX);
        if manifest.shards.is_empty()
            || manifest.shards.len() > most
            || !numbers.eq((0..).map(ShardId).take(manifest.shards.len()))
        {
            return Err(ManifestError::Shards);
        }
        Ok(manifest)
    }

    fn computed(&self) -> Result<Digest, serde_json::Error> {
        let without = Self { checksum: Digest([0; 32]), ..self.clone() };
        Ok(Digest::of(&serde_json::to_vec(&without)?))
    }
}

impl Digest {
    fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }
}

impl From<Census> for Totals {
    fn from(census: Census) -> Self {
        let Census { users, devices, one_time_prekeys } = census;
        Self { users, devices, one_time_prekeys }
    }
}

impl std::ops::AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.users += other.users;
        self.devices += other.devices;
        self.one_time_prekeys += other.one_time_prekeys;
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Digest {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WHAT: &str = "is not a digest, 64 hexadecimal digits";
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(WHAT);
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| WHAT)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| WHAT)?;
        }
        // One spelling.
        let digest = Self(bytes);
        if digest.to_string() == text { Ok(digest) } else { Err(WHAT) }
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn manifest() -> Manifest {
        let totals = Totals { users: 2, devices: 3, one_time_prekeys: 40 };
        let file = ShardFile {
            shard: ShardId(0),
            file: "shard-00000.backup".into(),
            index: LogIndex(17),
            bytes: 1000,
            sha256: Digest([7; 32]),
            totals,
        };
        Manifest {
            format: FORMAT,
            backup: BackupId([9; 16]),
            cluster: "trial".into(),
            epoch: Epoch::FIRST,
            taken_ms: TimestampMs(1_790_000_000_000),
            program: "0.1.0".into(),
            members: Vec::new(),
            shards: vec![file],
            totals,
            checksum: Digest([0; 32]),
        }
    }

    #[test]
    fn a_manifest_comes_back_as_it_was() {
        let (manifest, bytes) = manifest().encode().unwrap();
        assert_eq!(Manifest::decode(&bytes).unwrap(), manifest);
    }

    #[test]
    fn every_digit_that_changes_is_found() {
        let (_, bytes) = manifest().encode().unwrap();
        for place in 0..bytes.len() {
            if bytes[place].is_ascii_digit() {
                let mut changed = bytes.clone();
                changed[place] = if changed[place] == b'9' { b'8' } else { changed[place] + 1 };
                assert!(Manifest::decode(&changed).is_err(), "byte {place}");
            }
        }
    }

    #[test]
    fn a_later_format_is_told_from_damage() {
        let (_, bytes) = Manifest { format: 2, ..manifest() }.encode().unwrap();
        assert!(matches!(Manifest::decode(&bytes), Err(ManifestError::Format { found: 2 })));
        assert!(matches!(Manifest::decode(b"{}"), Err(ManifestError::Malformed(_))));
    }

    #[test]
    fn shards_that_do_not_make_a_cluster_are_refused() {
        let mut second = manifest();
        second.shards[0].shard = ShardId(1);
        let none = Manifest { shards: Vec::new(), ..manifest() };
        for manifest in [second, none] {
            let (_, bytes) = manifest.encode().unwrap();
            assert!(matches!(Manifest::decode(&bytes), Err(ManifestError::Shards)));
        }
    }
}
