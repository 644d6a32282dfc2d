//! HTTP wire types, version 1, shared by server and client.
