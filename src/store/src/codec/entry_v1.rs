//! Log entries as they were in version 1: no command named an epoch, because no cluster had ever been
//! restored; no registration named the one that it follows, no removal who asked for it.
//!
//! Guarantees: an entry means what it meant when it was written, so that a log which an older program
//! wrote gives the same state. Leaves out: writing.

use oncekey_types::{DeviceId, Epoch, RegistrationId, Seq, TimestampMs, UserId};
use serde::Deserialize;

use crate::command::{
    self, DeviceList, Dispense, Follows, IdentityKey, KeyBytes, OneTimePreKey, Policy,
    PutDeviceList, SignedPreKey, WriteTag,
};

#[derive(Deserialize)]
pub(super) struct Batch {
    time: TimestampMs,
    policy: Policy,
    commands: Vec<Command>,
}

#[expect(clippy::large_enum_variant, reason = "lives for a moment")]
#[derive(Deserialize)]
enum Command {
    Register(Register),
    ReplaceSignedPreKey(ReplaceSignedPreKey),
    AddOneTimePreKeys(AddOneTimePreKeys),
    RemoveDevice(RemoveDevice),
    PutDeviceList(PutDeviceList),
    Dispense(Dispense),
}

#[derive(Deserialize)]
struct Register {
    user: UserId,
    device: DeviceId,
    tag: WriteTag,
    identity_key: IdentityKey,
    authentication_key: KeyBytes,
    authentication_signature: KeyBytes,
    signed_prekey: SignedPreKey,
    one_time_prekeys: Vec<OneTimePreKey>,
    device_list: Option<DeviceList>,
}

#[derive(Deserialize)]
struct ReplaceSignedPreKey {
    user: UserId,
    device: DeviceId,
    tag: WriteTag,
    registration: RegistrationId,
    signed_prekey: SignedPreKey,
}

#[derive(Deserialize)]
struct AddOneTimePreKeys {
    user: UserId,
    device: DeviceId,
    tag: WriteTag,
    registration: RegistrationId,
    one_time_prekeys: Vec<OneTimePreKey>,
}

#[derive(Deserialize)]
struct RemoveDevice {
    user: UserId,
    device: DeviceId,
    seq: Option<Seq>,
}

impl From<Batch> for command::Batch {
    fn from(Batch { time, policy, commands }: Batch) -> Self {
        Self { time, policy, commands: commands.into_iter().map(Into::into).collect() }
    }
}

impl From<Command> for command::Command {
    fn from(command: Command) -> Self {
        match command {
            Command::Register(Register {
                user,
                device,
                tag,
                identity_key,
                authentication_key,
                authentication_signature,
                signed_prekey,
                one_time_prekeys,
                device_list,
            }) => Self::Register(command::Register {
                user,
                device,
                tag,
                follows: Follows::Unsaid,
                identity_key,
                authentication_key,
                authentication_signature,
                signed_prekey,
                one_time_prekeys,
                device_list,
                epoch: Epoch::FIRST,
            }),
            Command::ReplaceSignedPreKey(ReplaceSignedPreKey {
                user,
                device,
                tag,
                registration,
                signed_prekey,
            }) => Self::ReplaceSignedPreKey(command::ReplaceSignedPreKey {
                user,
                device,
                tag,
                registration,
                signed_prekey,
                epoch: Epoch::FIRST,
            }),
            Command::AddOneTimePreKeys(AddOneTimePreKeys {
                user,
                device,
                tag,
                registration,
                one_time_prekeys,
            }) => Self::AddOneTimePreKeys(command::AddOneTimePreKeys {
                user,
                device,
                tag,
                registration,
                one_time_prekeys,
                epoch: Epoch::FIRST,
            }),
            Command::RemoveDevice(RemoveDevice { user, device, seq }) => {
                let registration = None;
                Self::RemoveDevice(command::RemoveDevice { user, device, seq, registration })
            }
            Command::PutDeviceList(command) => Self::PutDeviceList(command),
            Command::Dispense(command) => Self::Dispense(command),
        }
    }
}
