-- Version 6: which user each of one's own profiles is, once a list of them was imported (`musterd map import`).

CREATE TABLE identities (
    -- Own profiles, and the user of the instance that each of them is. The link is to the id, which outlives every key: nothing but a
    -- person moves it. Whom a ticket may be given to is in the view `assignable`.
    instance    TEXT    NOT NULL, -- `instances.name`
    profile     TEXT    NOT NULL, -- what the profile is known by where it comes from, exactly as it was imported
    user_id     TEXT, -- the user it is linked to: `users.id`; null: none yet
    matched_by  TEXT CHECK (matched_by IN ('employee_number', 'email', 'user_name', 'pin')), -- by what the link was made; `pin`: a person said so
    state       TEXT    NOT NULL CHECK (state IN ('matched', 'pinned', 'ambiguous', 'missing', 'gone')), -- `ambiguous`: its keys lead to several users, or to another than `user_id`; `missing`: to nobody; `gone`: the instance does not show `user_id` any more
    candidates  TEXT, -- JSON, of `ambiguous` only: the ids that its keys lead to, the first 20 of them
    changed_seq INTEGER NOT NULL, -- `seq` of the newest change record of this profile
    PRIMARY KEY (instance, profile),
    CHECK (user_id IS NOT NULL OR state IN ('ambiguous', 'missing'))
);

CREATE INDEX identities_by_user -- the profiles of a user who changed: each apply; and readers who go from a user to the profiles
    ON identities (instance, user_id) WHERE user_id IS NOT NULL;

CREATE INDEX identities_ambiguous -- how many are ambiguous: `musterd status`
    ON identities (instance) WHERE state = 'ambiguous';

CREATE TABLE identity_maps (
    -- Not for readers: the instances that a list was imported for.
    instance TEXT    NOT NULL PRIMARY KEY, -- `instances.name`
    rules    TEXT    NOT NULL, -- the rules that profiles are matched by, in their order, a blank between: `identity.match` as of the last import
    ready    INTEGER NOT NULL CHECK (ready IN (0, 1)) -- 1: `user_keys` has everybody's keys
);

CREATE TABLE profiles (
    -- Not for readers: the list as it was imported last (`musterd map export`).
    instance        TEXT NOT NULL, -- `instances.name`
    profile         TEXT NOT NULL, -- as in `identities`
    employee_number TEXT, -- as it was imported, as all that follows
    email           TEXT, -- the address
    user_name       TEXT, -- the user name
    PRIMARY KEY (instance, profile)
);

CREATE TABLE identity_keys (
    -- Not for readers: the keys of profiles, by which a user who changed finds them.
    instance TEXT NOT NULL, -- `instances.name`
    profile  TEXT NOT NULL, -- as in `identities`
    rule     TEXT NOT NULL CHECK (rule IN ('employee_number', 'email', 'user_name')), -- which key
    folded   TEXT NOT NULL, -- in lower case
    exact    TEXT NOT NULL, -- as it was imported
    PRIMARY KEY (instance, profile, rule)
);

CREATE INDEX identity_keys_by_key -- the profiles that have a key of a user who changed: each apply
    ON identity_keys (instance, rule, folded, profile);

CREATE TABLE user_keys (
    -- Not for readers: the keys of all users whom an instance of `identity_maps` shows, by which a profile finds them. An index on
    -- `users` would cost every instance its share of each write.
    instance TEXT NOT NULL, -- `instances.name`
    rule     TEXT NOT NULL CHECK (rule IN ('employee_number', 'email', 'user_name')), -- which column of `users`
    folded   TEXT NOT NULL, -- in lower case
    id       TEXT NOT NULL, -- `users.id`
    exact    TEXT NOT NULL, -- as `users` has it
    PRIMARY KEY (instance, rule, folded, id)
) WITHOUT ROWID;

CREATE VIEW assignable AS
    -- Own profiles and whom tickets may be given to: linked without doubt to a living user of an instance that is still linked.
    SELECT
        identities.instance AS instance, -- `instances.name`
        identities.profile AS profile, -- the own key
        living.id AS user_id, -- the `sys_id`
        living.user_name AS user_name -- of the same user
    FROM identities
    JOIN active_users AS living ON living.instance = identities.instance AND living.id = identities.user_id
    WHERE identities.state IN ('matched', 'pinned');
