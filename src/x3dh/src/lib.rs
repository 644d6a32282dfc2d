//! The X3DH handshake: keys, bundles, initiator, responder.
