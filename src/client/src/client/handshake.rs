//! Both sides of a handshake, with the store in the right places.
//!
//! Guarantees: the initiator's session and message are stored before the message is returned, and
//! a retry sends the stored bytes. The responder goes through the steps of
//! [`oncekey_x3dh::responder`] in their order; the plaintext is released after the one transaction
//! that remembers the handshake, erases the one-time prekey's secret and stores the session. Each
//! identity key is pinned by the first handshake with its device.
//!
//! Leaves out: the ratchet. These functions block for a transaction of the store and the
//! arithmetic, well under ten milliseconds.

use std::fmt;

use oncekey_types::{OneTimePreKeyId, SignedPreKeyId, TimestampMs};
use oncekey_x3dh::{
    Address, AppAd, Expectations, Failure, Received as ReceivedMessage, VerifiedBundle,
    bundle::IdentityError,
    initiator::{InitiateError as HandshakeError, PayloadTooLong},
    keys::{IdentityPublic, OneTimePreKeyPair, SignedPreKeyPublic},
    responder::{OpenError, Payload, ReceiveError as MessageRefused},
    schedule::AppAdTooLong,
};

use super::{Client, os_random};
use crate::{
    keystore::{
        self, Absence, Acceptance, HeldSignedPreKey, KeyStore, OneTimePreKeyRecord, Role, Session,
        SessionId, SignedPreKeyRecord, Started, StartedSession,
    },
    machine::PinnedDeviceList,
    transport::Transport,
    trust::{Change, IdentityChanged, Standing, TrustEventId},
};

/// A handshake that this device has started.
#[derive(Debug)]
pub struct Outgoing {
    /// The bytes to send, and to send again until they are answered.
    pub message: Vec<u8>,
    /// The session.
    pub session: Session,
    /// The responder's signed prekey, which a ratchet starts from.
    pub signed_prekey: SignedPreKeyPublic,
}

/// Why a handshake could not be started. The bundle is used up; fetch another.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitiateError {
    /// The associated data.
    #[error(transparent)]
    AppAd(#[from] AppAdTooLong),
    /// The payload.
    #[error(transparent)]
    Payload(#[from] PayloadTooLong),
    /// The keys.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// Another identity key was pinned since the bundle was fetched.
    #[error("another identity key was pinned for the device since the bundle was fetched")]
    IdentityChanged,
    /// This device has used the same one-time prekey before: the bundle came from a fetch that was
    /// repeated, or a server handed the key out twice. The peer would open only one of the two;
    /// [send](Client::first_message) the first message of that session again instead.
    #[error("the bundle's one-time prekey has served another session of this device")]
    OneTimePreKeyUsed {
        /// The session.
        session: SessionId,
    },
    /// The key store.
    #[error(transparent)]
    Store(#[from] keystore::Error),
}

/// What came of a first message.
pub enum Received {
    /// It opened, for the first and only time.
    New {
        /// What the sender wrote.
        payload: Payload,
        /// The session.
        session: Session,
    },
    /// It was delivered before. Do not send under this session before the peer has shown a fresh
    /// ratchet key. If a process ended between delivery and whatever the application does with a
    /// payload, the payload is lost: ask for it again in the session.
    Duplicate {
        /// The session.
        session: Session,
    },
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, session) = match self {
            Self::New { session, .. } => ("New", session),
            Self::Duplicate { session } => ("Duplicate", session),
        };
        f.debug_struct(name).field("session", session).finish_non_exhaustive()
    }
}

/// Why a first message was refused. The peer is told nothing of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// The bytes are not a message for this device.
    #[error(transparent)]
    Message(#[from] MessageRefused),
    /// The associated data.
    #[error(transparent)]
    AppAd(#[from] AppAdTooLong),
    /// The signed prekey is neither current nor retained.
    #[error("signed prekey {id} {why}")]
    UnknownSpk {
        /// The signed prekey.
        id: SignedPreKeyId,
        /// Why it is not held.
        why: WhyGone,
    },
    /// The one-time prekey has served another handshake: it was handed out twice.
    #[error("one-time prekey {id} has been used")]
    OpkAlreadyUsed {
        /// The one-time prekey.
        id: OneTimePreKeyId,
    },
    /// The one-time prekey is not held and has served no handshake.
    #[error("one-time prekey {id} {why}")]
    OpkUnknown {
        /// The one-time prekey.
        id: OneTimePreKeyId,
        /// Why it is not held.
        why: Absence,
    },
    /// The message does not open. The one-time prekey stays.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The sender's identity key is not the one pinned.
    /// [Answer](Client::answer) the event and try again.
    #[error(transparent)]
    IdentityChanged(Box<IdentityChanged>),
    /// The sender's device is new in its user's list, and the user of this one has not said yes.
    /// [Answer](Client::answer) the event and try again.
    #[error("the sender's device waits for an answer")]
    Questioned {
        /// The event.
        event: TrustEventId,
    },
    /// The sender's device is not in the signed device list that is pinned.
    /// [Refresh](Client::refresh_device_list) the list and try again.
    #[error("the sender's device is not in the user's signed device list")]
    IdentityNotListed,
    /// The sender's identity key is of a kind that is not supported.
    #[error("the sender's identity key is of a kind that is not supported")]
    IdentityKind,
    /// The key store.
    #[error(transparent)]
    Store(#[from] keystore::Error),
}

/// Why the secret of a signed prekey is not held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WhyGone {
    /// Its time was over: it was replaced and the message came later than
    /// [`retain_for_s`](crate::Lifetimes::retain_for_s) after that.
    Expired {
        /// When it was replaced.
        replaced: TimestampMs,
    },
    /// There is no trace of it.
    Absent(Absence),
}

impl fmt::Display for WhyGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired { replaced } => {
                write!(f, "was deleted after it was replaced at {replaced}")
            }
            Self::Absent(absence) => absence.fmt(f),
        }
    }
}

impl ReceiveError {
    /// The reason, for telemetry; none when it says nothing about the handshake.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        Some(match self {
            Self::Message(error) => (*error).into(),
            Self::UnknownSpk { .. } => Failure::SpkUnknown,
            Self::OpkAlreadyUsed { .. } => Failure::OpkReused,
            Self::OpkUnknown { .. } => Failure::OpkMissing,
            Self::Open(error) => (*error).into(),
            Self::IdentityChanged(_) | Self::IdentityNotListed | Self::Questioned { .. } => {
                Failure::IdentityChanged
            }
            Self::IdentityKind => Failure::Malformed,
            Self::AppAd(_) | Self::Store(_) => return None,
        })
    }
}

impl<T: Transport, S: KeyStore> Client<T, S> {
    /// Starts a handshake with the owner of `bundle` and seals `payload` as its first message.
    /// Both sides must give the same `app_ad`.
    ///
    /// # Errors
    ///
    /// An [`InitiateError`].
    pub fn initiate(
        &self,
        bundle: VerifiedBundle,
        payload: &[u8],
        app_ad: &[u8],
    ) -> Result<Outgoing, InitiateError> {
        let app_ad = AppAd::new(app_ad)?;
        let (peer, peer_identity) = (bundle.owner().clone(), *bundle.identity());
        let signed_prekey = bundle.signed_prekey_id();
        let one_time_prekey = bundle.one_time_prekey_id();
        let spk = *bundle.signed_prekey();
        let sealed =
            bundle.initiate(self.device.local(), app_ad, &mut os_random())?.seal(payload)?;
        let session = Session {
            id: SessionId::of(&sealed.session),
            role: Role::Initiator,
            peer,
            peer_identity,
            signed_prekey,
            one_time_prekey,
            keys: Some(sealed.session),
        };
        let started = StartedSession { session: &session, message: &sealed.message };
        match self.store.start(&started, self.now())? {
            Started::Stored => {
                Ok(Outgoing { message: sealed.message, session, signed_prekey: spk })
            }
            Started::IdentityChanged => {
                self.count(Failure::IdentityChanged);
                Err(InitiateError::IdentityChanged)
            }
            Started::OneTimePreKeyUsed(session) => {
                Err(InitiateError::OneTimePreKeyUsed { session })
            }
        }
    }

    /// Opens a first message.
    ///
    /// # Errors
    ///
    /// A [`ReceiveError`]; nothing was changed.
    pub fn receive(&self, message: &[u8], app_ad: &[u8]) -> Result<Received, ReceiveError> {
        let result = self.open_first(message, app_ad);
        match &result {
            Ok(Received::New { .. }) => {}
            Ok(Received::Duplicate { .. }) => self.count(Failure::Replay),
            Err(error) => {
                if let Some(failure) = error.failure() {
                    self.count(failure);
                }
                if let ReceiveError::IdentityChanged(changed) = error {
                    self.store.notice(&Change::Identity((**changed).clone()), self.now())?;
                }
            }
        }
        result
    }

    /// Who says to have sent a first message to this device. Nothing but its form is checked: this
    /// is for [refreshing](Self::refresh_device_list) the sender's device list before the message
    /// is opened.
    ///
    /// # Errors
    ///
    /// [`Message`](ReceiveError::Message): the bytes are not a message for this device.
    pub fn claimed_sender(&self, message: &[u8]) -> Result<Address, ReceiveError> {
        let received = ReceivedMessage::parse(message, self.device.address())?;
        Ok(received.message().sender().clone())
    }

    fn open_first(&self, message: &[u8], app_ad: &[u8]) -> Result<Received, ReceiveError> {
        let app_ad = AppAd::new(app_ad)?;
        let received = ReceivedMessage::parse(message, self.device.address())?;
        let spk = self.retained(received.message().signed_prekey_id())?;
        let opk_id = received.message().one_time_prekey_id();
        let record = match opk_id {
            Some(id) => Some((id, self.store.one_time_prekey(id)?)),
            None => None,
        };
        // A replay names a key that is used: look for it before complaining about that.
        let opk_public = match &record {
            None => None,
            Some((_, OneTimePreKeyRecord::Held(pair))) => Some(*pair.public()),
            Some((_, OneTimePreKeyRecord::Used(public))) => Some(*public),
            Some((id, OneTimePreKeyRecord::Absent(why))) => {
                return Err(ReceiveError::OpkUnknown { id: *id, why: *why });
            }
        };
        let dedup = received.dedup_key(spk.pair.public(), opk_public.as_ref());
        if let Some(session) = self.store.accepted(&dedup)? {
            return Ok(Received::Duplicate { session });
        }
        let opk = held(record)?;
        let opened = received.open(self.device.local(), &spk.pair, opk.as_ref(), app_ad)?;
        let (peer, offered) = (opened.sender().clone(), *opened.sender_identity());
        let expected = self.expected(&peer)?;
        let accepted = opened
            .accept(&expected.as_expectations())
            .map_err(|error| expected.refusal(error, &peer, &offered))?;
        if let Standing::Questioned(event) = self.standing(&peer, &offered)? {
            return Err(ReceiveError::Questioned { event });
        }
        let delivered = accepted.commit(|commit| match self.store.accept(commit, self.now())? {
            Acceptance::Accepted => Ok(()),
            other => Err(NotAccepted::Raced(other)),
        });
        let id = |record: &oncekey_x3dh::responder::Commit| SessionId::of(record.session());
        match delivered {
            Ok(delivered) => Ok(Received::New {
                session: self.stored_session(id(&delivered.record))?,
                payload: delivered.payload,
            }),
            Err(NotAccepted::Store(error)) => Err(error.into()),
            Err(NotAccepted::Raced(acceptance)) => {
                self.raced(&acceptance, &spk, opk_id, &peer, &offered)
            }
        }
    }

    /// The signed prekey, current or retained.
    fn retained(&self, id: SignedPreKeyId) -> Result<HeldSignedPreKey, ReceiveError> {
        let why = match self.store.signed_prekey(id)? {
            SignedPreKeyRecord::Held(spk) => match spk.replaced {
                Some(replaced) if !self.config.lifetimes.is_retained(&spk, self.now()) => {
                    WhyGone::Expired { replaced }
                }
                Some(_) | None => return Ok(spk),
            },
            SignedPreKeyRecord::Deleted { replaced } => WhyGone::Expired { replaced },
            SignedPreKeyRecord::Absent(absence) => WhyGone::Absent(absence),
        };
        Err(ReceiveError::UnknownSpk { id, why })
    }

    /// What is pinned for a peer.
    fn expected(&self, peer: &Address) -> Result<Expected, keystore::Error> {
        let devices = match peer.user_id() {
            Some(user) => self.store.pinned_device_list(&user)?,
            None => None,
        };
        Ok(Expected { identity: self.store.pinned_identity(peer)?, devices })
    }

    /// Another task got in between the checks and the transaction.
    fn raced(
        &self,
        acceptance: &Acceptance,
        spk: &HeldSignedPreKey,
        opk: Option<OneTimePreKeyId>,
        peer: &Address,
        offered: &IdentityPublic,
    ) -> Result<Received, ReceiveError> {
        match acceptance {
            Acceptance::Duplicate(id) => {
                Ok(Received::Duplicate { session: self.stored_session(*id)? })
            }
            Acceptance::OneTimePreKeyUsed => Err(match opk {
                Some(id) => ReceiveError::OpkAlreadyUsed { id },
                None => keystore::Error::Stale.into(),
            }),
            Acceptance::SignedPreKeyDeleted => {
                let id = spk.pair.id();
                // Only another task that judges by the same rules deletes.
                self.retained(id).and_then(|_| Err(keystore::Error::Stale.into()))
            }
            Acceptance::IdentityChanged => {
                let expected = self.expected(peer)?;
                Err(expected.refusal(IdentityError::Changed, peer, offered))
            }
            Acceptance::Accepted => Err(keystore::Error::Stale.into()),
        }
    }
}

/// Why the transaction did not accept a handshake.
enum NotAccepted {
    Store(keystore::Error),
    Raced(Acceptance),
}

impl From<keystore::Error> for NotAccepted {
    fn from(error: keystore::Error) -> Self {
        Self::Store(error)
    }
}

struct Expected {
    identity: Option<IdentityPublic>,
    devices: Option<PinnedDeviceList>,
}

impl Expected {
    fn as_expectations(&self) -> Expectations<'_> {
        Expectations {
            identity: self.identity.as_ref(),
            devices: self.devices.as_ref().map(PinnedDeviceList::list),
        }
    }

    fn refusal(
        &self,
        error: IdentityError,
        peer: &Address,
        offered: &IdentityPublic,
    ) -> ReceiveError {
        match (error, &self.identity) {
            (IdentityError::Changed, Some(pinned)) => {
                ReceiveError::IdentityChanged(Box::new(IdentityChanged {
                    peer: peer.clone(),
                    pinned: *pinned,
                    offered: *offered,
                }))
            }
            (IdentityError::Kind { .. }, _) => ReceiveError::IdentityKind,
            _ => ReceiveError::IdentityNotListed,
        }
    }
}

/// The secret of the one-time prekey that the message names, if it names one.
fn held(
    record: Option<(OneTimePreKeyId, OneTimePreKeyRecord)>,
) -> Result<Option<OneTimePreKeyPair>, ReceiveError> {
    match record {
        None => Ok(None),
        Some((_, OneTimePreKeyRecord::Held(pair))) => Ok(Some(pair)),
        Some((id, OneTimePreKeyRecord::Used(_))) => Err(ReceiveError::OpkAlreadyUsed { id }),
        Some((id, OneTimePreKeyRecord::Absent(why))) => Err(ReceiveError::OpkUnknown { id, why }),
    }
}
