-- The part of the schema that the way from version 2 makes anew. A row without keys is a session whose
-- keys were taken.
CREATE TABLE session (
    id            BLOB    PRIMARY KEY,
    role          INTEGER NOT NULL,
    peer_user     BLOB    NOT NULL,
    peer_device   INTEGER NOT NULL,
    peer_identity BLOB    NOT NULL,
    spk           INTEGER NOT NULL,
    opk           INTEGER,
    sealed        BLOB,
    first_message BLOB,
    created_ms    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX session_opk ON session (peer_user, peer_device, opk);
