//! The client library: publish, fetch, handshake.
