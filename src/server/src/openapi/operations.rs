//! Every operation of the interface: what it takes, what it answers, how it can go wrong.

use oncekey_api::{
    Code::{self, *},
    backup, bundle, cluster, device, key, path, report, user,
};
use utoipa::openapi::HttpMethod::{self, Delete, Get, Post, Put};

use super::{
    body::Body,
    security::Credential::{self, *},
};

/// One method of one path.
pub(super) struct Operation {
    pub(super) method: HttpMethod,
    pub(super) path: &'static str,
    /// Its name in programs made from the description.
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    pub(super) asks: Asks,
    pub(super) query: Query,
    pub(super) request: Option<Body>,
    pub(super) reply: Reply,
    /// The ways to show who asks, each of credentials that come together; nobody has to when empty.
    pub(super) needs: Ways,
    /// Its own problems; those of everything that takes a path, a body or a quorum are added.
    pub(super) codes: &'static [Code],
}

type Ways = &'static [&'static [Credential]];

/// Who asks, and so where and with which headers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Asks {
    /// A client that fetches; names itself and the fetch.
    Fetcher,
    /// Any other client.
    Client,
    /// An operator, on the admin listener.
    Operator,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Query {
    None,
    /// `seq`, when the device itself asks.
    Seq,
    /// `user` and `device`.
    Device,
    /// `state=digest`.
    State,
}

/// What a request that succeeds is answered.
pub(super) enum Reply {
    /// 200 with JSON; the headers say where in the log the answer comes from.
    Routed(Body),
    /// 200 with JSON.
    Json(Body),
    /// 204 after a commit.
    RoutedEmpty,
    /// 204.
    Empty,
    /// 200 with another type.
    Other(&'static str),
}

const fn operation(
    method: HttpMethod,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    reply: Reply,
) -> Operation {
    Operation {
        method,
        path,
        id,
        summary,
        asks: Asks::Client,
        query: Query::None,
        request: None,
        reply,
        needs: &[],
        codes: &[],
    }
}

impl Operation {
    const fn by(self, asks: Asks) -> Self {
        Self { asks, ..self }
    }

    const fn query(self, query: Query) -> Self {
        Self { query, ..self }
    }

    const fn takes(self, body: Body) -> Self {
        Self { request: Some(body), ..self }
    }

    const fn needs(self, needs: Ways) -> Self {
        Self { needs, ..self }
    }

    const fn or(self, codes: &'static [Code]) -> Self {
        Self { codes, ..self }
    }
}

/// What is wrong with keys and signatures.
const DISPENSE: &[Code] = &[
    UnknownUser,
    UnknownDevice,
    OneTimePreKeyRequired,
    LimitExceeded,
    IdempotencyKeyReused,
    NoQuorum,
];

pub(super) const OPERATIONS: &[Operation] = &[
    operation(
        Get,
        path::USER,
        "user",
        "The devices of a user and its device list. Pops nothing.",
        Reply::Routed(Body::of::<user::User>()),
    )
    .needs(&[&[Token]])
    .or(&[UnknownUser, NoQuorum]),
    operation(
        Put,
        path::DEVICE,
        "register",
        "Register a device, or register it anew.",
        Reply::Routed(Body::of::<device::Registered>()),
    )
    .needs(&[&[OwnToken, Signature], &[Signature]])
    .takes(Body::of::<device::Register>())
    .or(&[
        RegistrationChanged,
        UnknownDevice,
        EpochChanged,
        OneTimePreKeyIdsNotGrowing,
        PoolFull,
        TooManyDevices,
        DeviceListOutOfOrder,
        DeviceListBrokenChain,
        DeviceListOtherAccount,
        LimitExceeded,
        InvalidKey,
        InvalidSignature,
        InvalidValidity,
        InvalidDeviceList,
        NoQuorum,
    ]),
    operation(
        Delete,
        path::DEVICE,
        "remove",
        "Remove a device and all its keys.",
        Reply::RoutedEmpty,
    )
    .needs(&[&[Signature], &[OperatorToken], &[Token]])
    .query(Query::Seq)
    .or(&[UnknownUser, UnknownDevice, SeqMissing, StaleSeq, RegistrationChanged, NoQuorum]),
    operation(
        Put,
        path::SIGNED_PREKEY,
        "replace_signed_prekey",
        "Replace the signed prekey of a device.",
        Reply::Routed(Body::of::<device::Pool>()),
    )
    .needs(&[&[Signature]])
    .takes(Body::of::<device::ReplaceSignedPreKey>())
    .or(&[
        UnknownUser,
        UnknownDevice,
        StaleSeq,
        EpochChanged,
        RegistrationChanged,
        SignedPreKeyIdNotGrowing,
        InvalidKey,
        InvalidSignature,
        InvalidValidity,
        NoQuorum,
    ]),
    operation(
        Post,
        path::ONE_TIME_PREKEYS,
        "add_one_time_prekeys",
        "Add one-time prekeys to the pool of a device.",
        Reply::Routed(Body::of::<device::Pool>()),
    )
    .needs(&[&[Signature]])
    .takes(Body::of::<device::AddOneTimePreKeys>())
    .or(&[
        UnknownUser,
        UnknownDevice,
        StaleSeq,
        EpochChanged,
        RegistrationChanged,
        OneTimePreKeyIdsNotGrowing,
        PoolFull,
        LimitExceeded,
        InvalidKey,
        InvalidSignature,
        NoQuorum,
    ]),
    operation(
        Get,
        path::PREKEYS,
        "status",
        "What the server holds of a device's keys.",
        Reply::Routed(Body::of::<device::Status>()),
    )
    .needs(&[&[Signature]])
    .or(&[UnknownUser, UnknownDevice, NoQuorum]),
    operation(
        Put,
        path::DEVICE_LIST,
        "put_device_list",
        "The next signed device list of a user.",
        Reply::Routed(Body::of::<user::DeviceListPut>()),
    )
    .needs(&[&[OwnToken]])
    .takes(Body::of::<key::DeviceList>())
    .or(&[
        UnknownUser,
        DeviceListOutOfOrder,
        DeviceListBrokenChain,
        DeviceListOtherAccount,
        LimitExceeded,
        InvalidKey,
        InvalidSignature,
        InvalidDeviceList,
        NoQuorum,
    ]),
    operation(
        Post,
        path::USER_BUNDLES,
        "fetch",
        "A bundle for each device of a user; pops one one-time prekey of each, in one commit.",
        Reply::Routed(Body::of::<bundle::Fetched>()),
    )
    .needs(&[&[Token]])
    .by(Asks::Fetcher)
    .takes(Body::of::<bundle::Fetch>())
    .or(DISPENSE),
    operation(
        Post,
        path::BUNDLES,
        "fetch_many",
        "Bundles of several users, each a fetch of its own.",
        Reply::Json(Body::of::<bundle::FetchedMany>()),
    )
    .needs(&[&[Token]])
    .by(Asks::Fetcher)
    .takes(Body::of::<bundle::FetchMany>())
    .or(&[LimitExceeded]),
    operation(
        Get,
        path::EVENTS,
        "events",
        "What there is for a device to look at, as it happens.",
        Reply::Other(oncekey_api::event::EVENT_STREAM),
    )
    .needs(&[&[Signature]])
    .query(Query::Device)
    .or(&[UnknownUser, UnknownDevice, NoQuorum]),
    operation(Post, path::REPORTS, "report", "Why handshakes failed, in numbers.", Reply::Empty)
        .needs(&[&[Signature]])
        .takes(Body::of::<report::Report>())
        .or(&[LimitExceeded, TooManyReports]),
    operation(
        Get,
        path::LIVEZ,
        "livez",
        "The process runs.",
        Reply::Json(Body::of::<cluster::Health>()),
    )
    .by(Asks::Operator),
    operation(
        Get,
        path::READYZ,
        "readyz",
        "The node can serve all its shards.",
        Reply::Json(Body::of::<cluster::Health>()),
    )
    .by(Asks::Operator)
    .or(&[NotReady]),
    operation(
        Get,
        path::METRICS,
        "metrics",
        "Metrics for Prometheus.",
        Reply::Other(crate::metrics::CONTENT_TYPE),
    )
    .by(Asks::Operator),
    operation(Get, path::OPENAPI, "openapi", "This description.", Reply::Other("application/json"))
        .by(Asks::Operator)
        .needs(&[&[OperatorToken]]),
    operation(
        Get,
        path::CLUSTER,
        "cluster",
        "The cluster as this node sees it.",
        Reply::Json(Body::of::<cluster::Cluster>()),
    )
    .by(Asks::Operator)
    .needs(&[&[OperatorToken]])
    .query(Query::State),
    operation(
        Get,
        path::STATUS_PAGE,
        "status_page",
        "A page for people that shows what the cluster tells.",
        Reply::Other("text/html"),
    )
    .by(Asks::Operator)
    .needs(&[&[OperatorToken]]),
    operation(
        Post,
        path::CLUSTER_REPLACE,
        "replace",
        "Put a new node in the place of a lost one.",
        Reply::Empty,
    )
    .by(Asks::Operator)
    .needs(&[&[OperatorToken]])
    .takes(Body::of::<cluster::Replace>())
    .or(&[UnknownNode, MembershipConflict, NoQuorum]),
    operation(
        Post,
        path::CLUSTER_INIT,
        "init",
        "Form a cluster of this node and others, all of them fresh.",
        Reply::Empty,
    )
    .by(Asks::Operator)
    .needs(&[&[OperatorToken]])
    .takes(Body::of::<cluster::Init>())
    .or(&[LimitExceeded, MembershipConflict]),
    operation(
        Post,
        path::CLUSTER_JOIN,
        "join",
        "Let a node hold replicas that has asked to join, or one that is draining after all.",
        Reply::Empty,
    )
    .by(Asks::Operator)
    .needs(&[&[OperatorToken]])
    .takes(Body::of::<cluster::Join>())
    .or(&[UnknownNode, MembershipConflict, NoQuorum]),
    operation(
        Post,
        path::CLUSTER_DRAIN,
        "drain",
        "Move everything away from a node, then remove it.",
        Reply::Empty,
    )
    .by(Asks::Operator)
    .needs(&[&[OperatorToken]])
    .takes(Body::of::<cluster::Drain>())
    .or(&[UnknownNode, MembershipConflict, NoQuorum]),
    operation(
        Post,
        path::CLUSTER_TRANSFER,
        "transfer",
        "Give the lead of a shard to another node that holds it.",
        Reply::Empty,
    )
    .by(Asks::Operator)
    .needs(&[&[OperatorToken]])
    .takes(Body::of::<cluster::Transfer>())
    .or(&[UnknownShard, MembershipConflict, NoQuorum]),
    operation(
        Get,
        path::BACKUP,
        "backup_plan",
        "What there is to be backed up.",
        Reply::Json(Body::of::<backup::Plan>()),
    )
    .by(Asks::Operator)
    .needs(&[&[OperatorToken]])
    .or(&[NotReady]),
    operation(
        Get,
        path::SHARD_BACKUP,
        "backup_shard",
        "One shard's backup, as frames: a length of four bytes and a chunk.",
        Reply::Other("application/octet-stream"),
    )
    .by(Asks::Operator)
    .needs(&[&[OperatorToken]])
    .or(&[UnknownShard, NotReady, NoQuorum]),
    operation(
        Post,
        path::RESTORE,
        "restore",
        "Begin to fill a new cluster from a backup.",
        Reply::Json(Body::of::<backup::Restored>()),
    )
    .by(Asks::Operator)
    .needs(&[&[OperatorToken]])
    .takes(Body::of::<backup::Restore>())
    .or(&[ClusterNotNew, NoQuorum]),
    operation(
        Post,
        path::RESTORE_RECORDS,
        "restore_records",
        "Put a chunk of a shard's backup into the new cluster; the body is the chunk.",
        Reply::Empty,
    )
    .by(Asks::Operator)
    .needs(&[&[OperatorToken]])
    .or(&[ClusterNotNew, EpochChanged, InvalidBody, LimitExceeded, BodyTooLarge, NoQuorum]),
    operation(
        Post,
        path::RESTORE_END,
        "restore_end",
        "Say that the backup is in the new cluster, which serves from then on.",
        Reply::Json(Body::of::<backup::Restored>()),
    )
    .by(Asks::Operator)
    .needs(&[&[OperatorToken]])
    .or(&[ClusterNotNew, EpochChanged, NoQuorum]),
];
