//! The handshake against vectors of other implementations, against an attacker with leaked keys,
//! and in the scenarios it must withstand.

#![expect(clippy::expect_used, clippy::panic, reason = "a test may fail where it finds out")]

mod altered;
mod leaks;
mod native;
mod party;
mod plain;
mod refused;
mod scenarios;
mod signed;
mod vectors;
