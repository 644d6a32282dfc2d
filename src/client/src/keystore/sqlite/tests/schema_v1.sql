-- Version 1, as it was; never to be changed.
-- "secret" columns and "keys" hold sealed blobs. Times end in their unit.

CREATE TABLE device (
    only            INTEGER PRIMARY KEY CHECK (only = 1),
    user            TEXT    NOT NULL,
    device          INTEGER NOT NULL,
    identity_secret BLOB    NOT NULL,
    authentication_secret BLOB NOT NULL,
    account_secret  BLOB,
    registration    INTEGER,
    seq             INTEGER NOT NULL DEFAULT 0,
    current_spk     INTEGER,
    highest_spk     INTEGER NOT NULL DEFAULT 0,
    highest_opk     INTEGER NOT NULL DEFAULT 0
) STRICT;

-- The write whose answer is not known.
CREATE TABLE pending_write (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    seq  INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    spk  INTEGER,
    body BLOB    NOT NULL
) STRICT;

CREATE TABLE signed_prekey (
    id          INTEGER PRIMARY KEY,
    secret      BLOB    NOT NULL,
    created_s   INTEGER NOT NULL,
    expires_s   INTEGER NOT NULL,
    replaced_ms INTEGER
) STRICT;

-- A row without a secret is the tombstone of a used key.
CREATE TABLE one_time_prekey (
    id      INTEGER PRIMARY KEY,
    secret  BLOB,
    public  BLOB    NOT NULL,
    used_ms INTEGER
) STRICT;

-- Handshakes that were accepted, for as long as the secret of their signed prekey is held.
CREATE TABLE handshake (
    dedup   BLOB    PRIMARY KEY,
    spk     INTEGER NOT NULL REFERENCES signed_prekey (id) ON DELETE CASCADE,
    session BLOB    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX handshake_spk ON handshake (spk);

CREATE TABLE session (
    id            BLOB    PRIMARY KEY,
    role          INTEGER NOT NULL,
    peer_user     BLOB    NOT NULL,
    peer_device   INTEGER NOT NULL,
    peer_identity BLOB    NOT NULL,
    spk           INTEGER NOT NULL,
    opk           INTEGER,
    keys          BLOB    NOT NULL,
    first_message BLOB,
    created_ms    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE identity_pin (
    user      BLOB    NOT NULL,
    device    INTEGER NOT NULL,
    identity  BLOB    NOT NULL,
    pinned_ms INTEGER NOT NULL,
    PRIMARY KEY (user, device)
) STRICT, WITHOUT ROWID;

CREATE TABLE device_list_pin (
    user        TEXT    PRIMARY KEY,
    seq         INTEGER NOT NULL,
    account_key BLOB    NOT NULL,
    list        BLOB    NOT NULL,
    signature   BLOB    NOT NULL
) STRICT, WITHOUT ROWID;
