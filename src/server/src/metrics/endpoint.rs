//! The endpoints as metrics and spans name them.

use axum::{
    extract::{MatchedPath, Request},
    http::Method,
};
use oncekey_api::path;

macro_rules! endpoints {
    ($($name:ident = $text:literal;)*) => {
        /// An endpoint, for metrics and spans.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(crate) enum Endpoint {
            $($name,)*
        }

        impl Endpoint {
            pub(super) const ALL: &[Self] = &[$(Self::$name),*];

            /// Its name.
            pub(crate) const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

endpoints! {
    User = "user";
    PutDeviceList = "put_device_list";
    Register = "register";
    Remove = "remove";
    ReplaceSignedPreKey = "replace_signed_prekey";
    AddOneTimePreKeys = "add_one_time_prekeys";
    Status = "status";
    Fetch = "fetch";
    FetchMany = "fetch_many";
    Events = "events";
    Report = "report";
    Livez = "livez";
    Readyz = "readyz";
    Metrics = "metrics";
    Openapi = "openapi";
    Cluster = "cluster";
    Replace = "replace";
    Init = "init";
    Join = "join";
    Drain = "drain";
    Transfer = "transfer";
    StatusPage = "status_page";
    Backup = "backup";
    Restore = "restore";
    Other = "other";
}

impl Endpoint {
    /// The endpoint that a request was routed to.
    pub(crate) fn of(request: &Request) -> Self {
        let matched = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
        match (request.method(), matched.unwrap_or_default()) {
            (&Method::GET | &Method::HEAD, path::USER) => Self::User,
            (&Method::PUT, path::DEVICE_LIST) => Self::PutDeviceList,
            (&Method::PUT, path::DEVICE) => Self::Register,
            (&Method::DELETE, path::DEVICE) => Self::Remove,
            (&Method::PUT, path::SIGNED_PREKEY) => Self::ReplaceSignedPreKey,
            (&Method::POST, path::ONE_TIME_PREKEYS) => Self::AddOneTimePreKeys,
            (&Method::GET | &Method::HEAD, path::PREKEYS) => Self::Status,
            (&Method::POST, path::USER_BUNDLES) => Self::Fetch,
            (&Method::POST, path::BUNDLES) => Self::FetchMany,
            (&Method::GET | &Method::HEAD, path::EVENTS) => Self::Events,
            (&Method::POST, path::REPORTS) => Self::Report,
            (&Method::GET | &Method::HEAD, path::LIVEZ) => Self::Livez,
            (&Method::GET | &Method::HEAD, path::READYZ) => Self::Readyz,
            (&Method::GET | &Method::HEAD, path::METRICS) => Self::Metrics,
            (&Method::GET | &Method::HEAD, path::OPENAPI) => Self::Openapi,
            (&Method::GET | &Method::HEAD, path::CLUSTER) => Self::Cluster,
            (&Method::POST, path::CLUSTER_REPLACE) => Self::Replace,
            (&Method::POST, path::CLUSTER_INIT) => Self::Init,
            (&Method::POST, path::CLUSTER_JOIN) => Self::Join,
            (&Method::POST, path::CLUSTER_DRAIN) => Self::Drain,
            (&Method::POST, path::CLUSTER_TRANSFER) => Self::Transfer,
            (&Method::GET | &Method::HEAD, path::STATUS_PAGE) => Self::StatusPage,
            (&Method::GET | &Method::HEAD, path::BACKUP | path::SHARD_BACKUP) => Self::Backup,
            (&Method::POST, path::RESTORE | path::RESTORE_RECORDS | path::RESTORE_END) => {
                Self::Restore
            }
            _ => Self::Other,
        }
    }
}
