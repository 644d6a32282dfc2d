//! Checking that a backup is whole.

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use oncekey_types::ShardId;

use crate::{
    frames::{Checked, Frames, StreamError},
    location::{Location, ReadManifestError},
    manifest::{Manifest, ShardFile},
};

/// Why a backup is not whole.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The manifest.
    #[error(transparent)]
    Manifest(#[from] ReadManifestError),
    /// A file cannot be read.
    #[error("the file of shard {shard} cannot be read")]
    Read {
        /// The shard.
        shard: ShardId,
        /// The reason.
        source: object_store::Error,
    },
    /// A file is not a shard's backup.
    #[error("the file of shard {shard} is damaged")]
    Stream {
        /// The shard.
        shard: ShardId,
        /// In what way.
        source: StreamError,
    },
    /// A file is not the one that the manifest names.
    #[error("the file of shard {shard} is not the one that belongs to this backup")]
    OtherFile {
        /// The shard.
        shard: ShardId,
    },
}

/// Reads the whole backup at `location` and checks it against its manifest, which it gives back.
///
/// # Errors
///
/// The first thing that is wrong, as a [`VerifyError`].
pub async fn verify(location: &Location) -> Result<Manifest, VerifyError> {
    let manifest = location.read_manifest().await?;
    for file in &manifest.shards {
        read_shard(location, file, async |_| Ok::<_, VerifyError>(())).await?;
    }
    Ok(manifest)
}

/// Reads a shard's file, hands each chunk to `each`, and checks it. What was handed over is known to
/// be of the backup only when this has returned.
pub(crate) async fn read_shard<E: From<VerifyError>>(
    location: &Location,
    file: &ShardFile,
    mut each: impl AsyncFnMut(Bytes) -> Result<(), E>,
) -> Result<(), E> {
    let shard = file.shard;
    let unreadable = |source| VerifyError::Read { shard, source };
    let damaged = |source| VerifyError::Stream { shard, source };
    let mut bytes = location.read(&file.file).await.map_err(unreadable)?;
    let (mut frames, mut checked) = (Frames::default(), Checked::new());
    while let Some(bytes) = bytes.try_next().await.map_err(unreadable)? {
        frames.push(&bytes);
        while let Some(chunk) = frames.next_chunk().map_err(damaged)? {
            checked.pass(&chunk).map_err(damaged)?;
            each(chunk).await?;
        }
    }
    frames.finish().map_err(damaged)?;
    let passed = checked.finish().map_err(damaged)?;
    let is_it = passed.sha256 == file.sha256
        && passed.bytes == file.bytes
        && file.totals == passed.census.into();
    if is_it { Ok(()) } else { Err(VerifyError::OtherFile { shard }.into()) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::{ObjectStore, ObjectStoreExt as _, memory::InMemory, path::Path};
    use oncekey_store::{
        apply,
        command::{
            Batch, Command, IdentityKey, KeyBytes, OneTimePreKey, Policy, Register, SignedPreKey,
            WriteTag,
        },
        snapshot::{Content, Writer},
        state::MemoryState,
    };
    use oncekey_types::{
        DeviceId, Epoch, LogIndex, OneTimePreKeyId, Seq, ShardId, SignedPreKeyId, TimestampMs,
        UnixSeconds,
    };

    use super::*;
    use crate::manifest::{Totals, tests::manifest};

    /// A shard with so many users, each with a device and two one-time prekeys.
    fn shard(users: u64) -> MemoryState {
        let mut state = MemoryState::default();
        for number in 1..=users {
            let key = KeyBytes(vec![1; 32]);
            let prekey = |id| OneTimePreKey {
                id: OneTimePreKeyId(id),
                key: key.clone(),
                signature: key.clone(),
            };
            let register = Command::Register(Register {
                user: format!("user-{number}").parse().unwrap(),
                device: DeviceId(1),
                tag: WriteTag { seq: Seq(1), digest: [1; 32] },
                follows: oncekey_store::command::Follows::Nothing,
                identity_key: IdentityKey { kind: 1, key: key.clone() },
                authentication_key: key.clone(),
                authentication_signature: key.clone(),
                signed_prekey: SignedPreKey {
                    id: SignedPreKeyId(1),
                    key: key.clone(),
                    created: UnixSeconds(1),
                    expires: UnixSeconds(2),
                    signature: key.clone(),
                },
                one_time_prekeys: vec![prekey(1), prekey(2)],
                device_list: None,
                epoch: Epoch::FIRST,
            });
            let time = TimestampMs(number);
            let batch = Batch { time, policy: Policy::default(), commands: vec![register] };
            state.commit(apply(&state, LogIndex(number), &batch).unwrap().changes);
        }
        state
    }

    /// Writes a backup of shards with so many users, as taking one does.
    async fn back_up(store: &Arc<InMemory>, users: &[u64]) -> Location {
        let store: Arc<dyn ObjectStore> = store.clone();
        let location = Location::within(store, Path::from("a/backup"), "memory");
        let mut manifest = Manifest { shards: Vec::new(), ..manifest() };
        manifest.totals = Totals::default();
        for (number, users) in (0..).zip(users) {
            let state = shard(*users);
            let file = format!("shard-{number:05}.backup");
            let (mut writer, mut checked) = (Writer::of(Content::Backup), Checked::new());
            let mut to = location.writer(&file);
            while let Some(chunk) = writer.next_chunk(&state).unwrap() {
                to.write(checked.pass(&chunk).unwrap()).await.unwrap();
            }
            to.finish().await.unwrap();
            let passed = checked.finish().unwrap();
            let totals = Totals::from(passed.census);
            manifest.totals += totals;
            manifest.shards.push(ShardFile {
                shard: ShardId(number),
                file,
                index: LogIndex(*users),
                bytes: passed.bytes,
                sha256: passed.sha256,
                totals,
            });
        }
        let (_, bytes) = manifest.encode().unwrap();
        location.write_manifest(bytes).await.unwrap();
        location
    }

    #[tokio::test]
    async fn a_backup_in_an_object_store_is_whole_and_says_what_it_has() {
        let location = back_up(&Arc::default(), &[2000, 0]).await;
        let manifest = verify(&location).await.unwrap();
        let all = Totals { users: 2000, devices: 2000, one_time_prekeys: 4000 };
        assert_eq!(manifest.totals, all);
        assert!(manifest.shards[0].bytes > 500_000, "several chunks: {manifest:?}");
        assert!(!location.is_unused().await.unwrap());
    }

    #[tokio::test]
    async fn a_file_that_is_missing_cut_off_or_of_another_backup_is_found() {
        let name = |file: &str| Path::from(format!("a/backup/{file}"));
        let (first, second) = (name("shard-00000.backup"), name("shard-00001.backup"));
        let store = Arc::<InMemory>::default();

        let location = back_up(&store, &[3, 4]).await;
        store.delete(&second).await.unwrap();
        let missing = verify(&location).await.unwrap_err();
        assert!(matches!(missing, VerifyError::Read { shard: ShardId(1), .. }), "{missing}");

        let location = back_up(&store, &[3, 4]).await;
        store.copy(&second, &first).await.unwrap();
        let other = verify(&location).await.unwrap_err();
        assert!(matches!(other, VerifyError::OtherFile { shard: ShardId(0) }), "{other}");

        let location = back_up(&store, &[3, 4]).await;
        let whole = store.get(&second).await.unwrap().bytes().await.unwrap();
        for kept in [0, 3, 40, whole.len() - 1] {
            store.put(&second, whole.slice(..kept).into()).await.unwrap();
            let cut = verify(&location).await.unwrap_err();
            assert!(matches!(cut, VerifyError::Stream { shard: ShardId(1), .. }), "{kept}: {cut}");
        }

        let location = back_up(&store, &[3, 4]).await;
        store.delete(&name("manifest.json")).await.unwrap();
        let unfinished = verify(&location).await.unwrap_err();
        assert!(
            matches!(unfinished, VerifyError::Manifest(ReadManifestError::Missing)),
            "{unfinished}"
        );
    }
}
