-- The cluster's epoch, as this device knows it.
CREATE TABLE epoch (
    only  INTEGER PRIMARY KEY CHECK (only = 1),
    epoch INTEGER NOT NULL
) STRICT;

INSERT INTO epoch VALUES (1, 0);

-- The epoch in which a pinned list was shown.
CREATE TABLE device_list_epoch (
    user  TEXT    PRIMARY KEY,
    epoch INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
