//! A node of its own cluster, asked over real sockets.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail like tests")]

mod auth;
mod described;
mod edge;
mod endpoints;
mod events;
mod hostile;
mod key_server;
mod limits;
mod metrics;
mod outage;
mod support;
mod tls;
