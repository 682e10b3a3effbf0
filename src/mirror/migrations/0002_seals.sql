-- Version 2: by what `musterd verify` knows every row again as the one that was written, and by what a sync knows that
-- another one has read a resource meanwhile without finding a change. The program seals what is there in the transaction of
-- this step, and from then on whatever a transaction wrote before it commits.

CREATE TABLE seals (
    -- Not for readers: a hash of each row of each other table but `fingerprints`, kept apart from the row. A page that is lost, a
    -- cell that is altered, a row that is removed or added without the program is found by comparing them.
    of   TEXT NOT NULL, -- the table
    key  NOT NULL, -- which row: its number, or the columns of its key with a space between
    seal BLOB NOT NULL, -- a checksum of each cell, a byte each, then 16 bytes of a hash of all of them
    PRIMARY KEY (of, key)
) WITHOUT ROWID;

ALTER TABLE fingerprints RENAME TO fingerprints_of_version_1;

CREATE TABLE fingerprints (
    -- Not for readers: by what an unchanged resource is known without decoding it.
    instance    TEXT NOT NULL, -- `instances.name`
    resource    TEXT NOT NULL CHECK (resource <> ''), -- `User`
    id          TEXT NOT NULL, -- the resource's id
    fingerprint BLOB NOT NULL, -- of what arrived, when it was applied in full; 16 zero bytes while a part of it is held
    tx          INTEGER NOT NULL, -- the number of the transaction that wrote it: the resource was read before that
    seal        BLOB NOT NULL, -- of the other columns, and of the record that the resource's row was at, `users.changed_seq`
    PRIMARY KEY (instance, resource, id)
) WITHOUT ROWID;

INSERT INTO fingerprints
    SELECT instance, resource, id, fingerprint, 0, x'' FROM fingerprints_of_version_1;

DROP TABLE fingerprints_of_version_1;

ALTER TABLE source_counts
    ADD COLUMN tx INTEGER NOT NULL DEFAULT 0; -- the number of the last transaction that applied something of this source
