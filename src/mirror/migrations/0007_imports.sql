-- Version 7: two imports of one list are told apart.

CREATE TABLE imports (
    -- Not for readers: how often an import was begun for each instance. The pieces of a list carry the number of theirs, and are
    -- refused once a later import was begun.
    instance TEXT    NOT NULL PRIMARY KEY, -- `instances.name`
    number   INTEGER NOT NULL -- of the import that was begun last
);
