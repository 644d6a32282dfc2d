-- Version 4, with session.sql and epoch.sql. A change of one of them needs a new version and a
-- migration (migrate.rs).
-- Columns that end in "sealed" hold sealed blobs. Times end in their unit.

-- The data key, under a passphrase or a key that is kept elsewhere; no row in a store that lives in
-- memory.
CREATE TABLE lock (
    only   INTEGER PRIMARY KEY CHECK (only = 1),
    locked BLOB    NOT NULL
) STRICT;

CREATE TABLE device (
    only            INTEGER PRIMARY KEY CHECK (only = 1),
    user            TEXT    NOT NULL,
    device          INTEGER NOT NULL,
    identity_sealed BLOB    NOT NULL,
    authentication_sealed BLOB NOT NULL,
    account_sealed  BLOB,
    registration    INTEGER,
    seq             INTEGER NOT NULL DEFAULT 0,
    current_spk     INTEGER,
    highest_spk     INTEGER NOT NULL DEFAULT 0,
    highest_opk     INTEGER NOT NULL DEFAULT 0,
    -- Prekeys up to these ids were thrown away when the device was restored.
    discarded_spk   INTEGER NOT NULL DEFAULT 0,
    discarded_opk   INTEGER NOT NULL DEFAULT 0
) STRICT;

-- The write whose answer is not known.
CREATE TABLE pending_write (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    seq  INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    spk  INTEGER,
    body BLOB    NOT NULL
) STRICT;

-- A row without a secret is the tombstone of a deleted key.
CREATE TABLE signed_prekey (
    id          INTEGER PRIMARY KEY,
    sealed      BLOB,
    created_s   INTEGER NOT NULL,
    expires_s   INTEGER NOT NULL,
    replaced_ms INTEGER
) STRICT;

-- A row without a secret is the tombstone of a used key.
CREATE TABLE one_time_prekey (
    id      INTEGER PRIMARY KEY,
    sealed  BLOB,
    public  BLOB    NOT NULL,
    used_ms INTEGER
) STRICT;

-- Handshakes that were accepted, for as long as the secret of their signed prekey is held.
CREATE TABLE handshake (
    dedup   BLOB    PRIMARY KEY,
    spk     INTEGER NOT NULL REFERENCES signed_prekey (id),
    session BLOB    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX handshake_spk ON handshake (spk);

CREATE TABLE identity_pin (
    user      BLOB    NOT NULL,
    device    INTEGER NOT NULL,
    sealed    BLOB    NOT NULL,
    pinned_ms INTEGER NOT NULL,
    PRIMARY KEY (user, device)
) STRICT, WITHOUT ROWID;

CREATE TABLE device_list_pin (
    user        TEXT    PRIMARY KEY,
    seq         INTEGER NOT NULL,
    account_sealed BLOB NOT NULL,
    list        BLOB    NOT NULL,
    signature   BLOB    NOT NULL
) STRICT, WITHOUT ROWID;

-- Changes of trust that the user was or is to be asked about.
CREATE TABLE trust_event (
    id         INTEGER PRIMARY KEY,
    user       BLOB    NOT NULL,
    sealed     BLOB    NOT NULL,
    noticed_ms INTEGER NOT NULL,
    answer     INTEGER
) STRICT;

CREATE INDEX trust_event_user ON trust_event (user);
