-- Version 1: the mirror, its feed, and what is kept about syncs.
--
-- Comments stand inside the statements, so that `.schema` in any SQLite shell shows them. Nothing here is
-- newer than SQLite 3.26: readers bring their own. Times are RFC 3339 UTC text; ours have milliseconds, so that
-- their order as text is their order in time.

CREATE TABLE feed (
    -- One row: the state of the feed. A reader keeps (epoch, seq).
    epoch     TEXT    NOT NULL CHECK (epoch <> ''), -- random, made with the file; another epoch means: read `users` again
    first_seq INTEGER NOT NULL CHECK (first_seq >= 1), -- the oldest record still in `changes`; below `first_seq - 1` a reader has missed some
    last_seq  INTEGER NOT NULL CHECK (last_seq >= first_seq - 1) -- the newest record; 0 when there was none yet
);

CREATE UNIQUE INDEX feed_is_one_row -- keeps a second row out; no query reads it
    ON feed (first_seq IS NULL);

CREATE TABLE instances (
    -- The linked ServiceNow instances, those no longer configured included.
    name                 TEXT    NOT NULL PRIMARY KEY, -- the configured name
    url                  TEXT    NOT NULL, -- the pinned origin: `musterd relink` changes it
    state                TEXT    NOT NULL CHECK (state IN ('new', 'healthy', 'failing', 'source_changed', 'unlinked')), -- `source_changed`: it looks like another directory; `unlinked`: no longer configured
    not_before           TEXT, -- the instance asked to be left alone until then
    last_success_at      TEXT, -- when a sync last succeeded
    last_error           TEXT, -- why a sync last failed
    last_error_at        TEXT, -- when that was
    consecutive_failures INTEGER NOT NULL DEFAULT 0 CHECK (consecutive_failures >= 0) -- failed syncs since the last success
);

CREATE TABLE sources (
    -- One resource type of one instance: what a sync reads.
    instance             TEXT NOT NULL, -- `instances.name`
    resource             TEXT NOT NULL CHECK (resource <> ''), -- the SCIM resource type: `User`
    watermark            TEXT, -- incremental syncs are complete up to here, by the instance's clock
    baseline_at          TEXT, -- when the first complete full sync was applied; before, nobody counts as absent
    last_success_at      TEXT, -- when a sync of either mode last succeeded
    last_full_success_at TEXT, -- when a complete full sync last succeeded
    capabilities         TEXT, -- JSON: what the instance was seen to honour
    PRIMARY KEY (instance, resource)
);

CREATE TABLE users (
    -- Every user ever seen, as the instance last showed it. Nobody is removed: who is gone has `active` 0 and `gone_at`.
    -- Names, addresses and titles are other people's text, exactly as it arrived.
    instance           TEXT    NOT NULL, -- `instances.name`
    id                 TEXT    NOT NULL, -- the SCIM `id`; in ServiceNow the `sys_id`
    external_id        TEXT, -- `externalId`
    user_name          TEXT, -- `userName`
    active             INTEGER NOT NULL CHECK (active IN (0, 1)), -- 1: may be given work; 0: inactive, or gone
    display_name       TEXT, -- `displayName`
    given_name         TEXT, -- `name.givenName`
    family_name        TEXT, -- `name.familyName`
    email              TEXT, -- the work address of `emails`
    title              TEXT, -- `title`
    department_id      TEXT, -- the department's id; a reference's id and label are kept apart
    department         TEXT, -- the department's label
    manager_id         TEXT, -- the manager's id, most often an `id` of this table; never a foreign key
    manager            TEXT, -- the manager's label
    cost_center_id     TEXT, -- the cost centre's id
    cost_center        TEXT, -- the cost centre's label
    company_id         TEXT, -- the company's id
    company            TEXT, -- the company's label
    location_id        TEXT, -- the location's id
    location           TEXT, -- the location's label
    employee_number    TEXT, -- `employeeNumber` of the extensions
    user_type          TEXT, -- `userType`
    phone              TEXT, -- the work number of `phoneNumbers`
    mobile_phone       TEXT, -- the mobile number of `phoneNumbers`
    preferred_language TEXT, -- `preferredLanguage`
    locale             TEXT, -- `locale`
    timezone           TEXT, -- `timezone`
    created_at         TEXT, -- `meta.created`, by the instance's clock
    modified_at        TEXT, -- `meta.lastModified` at the last change that was recorded, by the instance's clock
    attributes         TEXT    NOT NULL, -- JSON: the whole canonical resource, custom attributes included
    first_seen_at      TEXT    NOT NULL, -- when the mirror first saw the user
    changed_at         TEXT    NOT NULL, -- `observed_at` of the newest change record
    changed_seq        INTEGER NOT NULL, -- `seq` of the newest change record
    gone_at            TEXT, -- when the instance was found not to show this user any more; null: it does
    PRIMARY KEY (instance, id)
);

CREATE INDEX users_by_user_name -- a user looked up by name: `musterd user`, and readers who write `user_name = … COLLATE NOCASE`
    ON users (instance, user_name COLLATE NOCASE);

CREATE INDEX users_by_email -- a user looked up by address: `musterd user`, and readers who write `email = … COLLATE NOCASE`
    ON users (instance, email COLLATE NOCASE);

CREATE TABLE changes (
    -- The feed: every change record that is still kept, dense in `seq` from `feed.first_seq` to `feed.last_seq`.
    seq                INTEGER NOT NULL PRIMARY KEY, -- grows by exactly 1, over all instances; never issued twice
    sync_id            INTEGER NOT NULL, -- the sync that wrote it: `syncs.id`
    instance           TEXT    NOT NULL, -- `instances.name`
    resource           TEXT    NOT NULL CHECK (resource <> ''), -- `User`
    id                 TEXT    NOT NULL, -- the resource's id
    kind               TEXT    NOT NULL CHECK (kind IN ('create', 'update', 'deactivate')), -- what happened
    reason             TEXT    NOT NULL CHECK (reason IN ('baseline', 'new', 'changed', 'reactivated', 'returned', 'gone', 'inactive', 'source_changed')), -- why
    changed            TEXT, -- JSON by path, `{"title":{"from":…,"to":…}}`; of a reference both columns; null on create
    after              TEXT    NOT NULL, -- JSON: the whole canonical resource, the same text as `users.attributes`
    proof              TEXT, -- JSON: how it was proved that the instance no longer shows the user; on `gone` only
    hold_id            INTEGER, -- the hold that was approved, if it was held: `holds.id`
    source_modified_at TEXT, -- `meta.lastModified`, by the instance's clock; null: unknown
    observed_at        TEXT    NOT NULL -- when it was written; never goes back
);

CREATE INDEX changes_by_resource -- the history of one resource, and folding the feed: `users_history`, `musterd user`, `musterd verify`
    ON changes (instance, resource, id, seq);

CREATE TABLE changes_base (
    -- The newest trimmed record of each resource, columns as in `changes`: this table, then `changes`, folds to `users`.
    seq                INTEGER NOT NULL, -- below `feed.first_seq`
    sync_id            INTEGER NOT NULL, -- as in `changes`
    instance           TEXT    NOT NULL, -- as in `changes`
    resource           TEXT    NOT NULL CHECK (resource <> ''), -- as in `changes`
    id                 TEXT    NOT NULL, -- as in `changes`
    kind               TEXT    NOT NULL CHECK (kind IN ('create', 'update', 'deactivate')), -- as in `changes`
    reason             TEXT    NOT NULL CHECK (reason IN ('baseline', 'new', 'changed', 'reactivated', 'returned', 'gone', 'inactive', 'source_changed')), -- as in `changes`
    changed            TEXT, -- as in `changes`
    after              TEXT    NOT NULL, -- as in `changes`
    proof              TEXT, -- as in `changes`
    hold_id            INTEGER, -- as in `changes`
    source_modified_at TEXT, -- as in `changes`
    observed_at        TEXT    NOT NULL, -- as in `changes`
    PRIMARY KEY (instance, resource, id)
);

CREATE TABLE syncs (
    -- Every sync that ended. Those that changed nothing are kept for `mirror.sync_history`.
    id           INTEGER PRIMARY KEY AUTOINCREMENT, -- reserved when the sync starts; never used twice, also when it was killed
    instance     TEXT    NOT NULL, -- `instances.name`
    resource     TEXT    NOT NULL CHECK (resource <> ''), -- `User`
    mode         TEXT    NOT NULL CHECK (mode IN ('full', 'incremental')), -- only a full one can notice absence
    trigger      TEXT    NOT NULL CHECK (trigger IN ('schedule', 'startup', 'request')), -- what asked for it
    started_at   TEXT    NOT NULL, -- by our clock
    finished_at  TEXT    NOT NULL, -- by our clock
    outcome      TEXT    NOT NULL CHECK (outcome IN ('succeeded', 'failed', 'cancelled')), -- how it ended; what a failed one had applied stays
    certificate  TEXT, -- JSON: what the crawl knows of its own completeness: `verdict`, `reasons`, the numbers
    seen         INTEGER NOT NULL, -- distinct resources seen
    created      INTEGER NOT NULL, -- `create` records written
    updated      INTEGER NOT NULL, -- `update` records written
    deactivated  INTEGER NOT NULL, -- `deactivate` records written
    held         INTEGER NOT NULL, -- changes kept back by a guard
    rejected     INTEGER NOT NULL, -- resources that could not be understood, all of them
    requests     INTEGER NOT NULL, -- requests sent, token requests and repeats included
    retries      INTEGER NOT NULL, -- of those, repeats of a failed one
    bytes        INTEGER NOT NULL, -- bytes of answers, decompressed
    throttled_ms INTEGER NOT NULL, -- time waited because the instance said so
    error        TEXT -- why it failed
);

CREATE INDEX syncs_without_change -- finding the old syncs that changed nothing: trimming
    ON syncs (finished_at) WHERE created = 0 AND updated = 0 AND deactivated = 0 AND held = 0;

CREATE TABLE holds (
    -- Sets of changes that a guard kept back until a person approves them, or they no longer stand.
    id         INTEGER PRIMARY KEY AUTOINCREMENT, -- never used twice
    instance   TEXT    NOT NULL, -- `instances.name`
    sync_id    INTEGER NOT NULL, -- the sync that opened it: `syncs.id`
    guard      TEXT    NOT NULL CHECK (guard IN ('deactivations', 'blanking', 'source_changed')), -- which guard
    attribute  TEXT, -- the path that would turn empty, of `blanking`
    count      INTEGER NOT NULL, -- changes in it when it opened
    limit_text TEXT    NOT NULL, -- the limit that was exceeded, for people
    digest     TEXT    NOT NULL, -- SHA-256 of the exact set when it opened; approving asks for it
    state      TEXT    NOT NULL CHECK (state IN ('open', 'approved', 'resolved')), -- `resolved`: nothing in it stands any more
    opened_at  TEXT    NOT NULL, -- by our clock
    closed_at  TEXT -- by our clock; null while open
);

CREATE INDEX holds_open -- the open holds of an instance: `mirror_health`, `users_held`, the guards
    ON holds (instance) WHERE state = 'open';

CREATE TABLE hold_changes (
    -- The exact changes of each hold. While one is `held`, `users` keeps the old value at its path.
    hold_id  INTEGER NOT NULL, -- `holds.id`
    resource TEXT    NOT NULL CHECK (resource <> ''), -- `User`
    id       TEXT    NOT NULL, -- the resource's id
    path     TEXT    NOT NULL, -- what is held: a column, a SCIM path, or `all`
    kind     TEXT    NOT NULL CHECK (kind IN ('create', 'update', 'deactivate')), -- of the record it would be
    changed  TEXT, -- JSON as in `changes`
    after    TEXT    NOT NULL, -- JSON: the resource as it was read
    proof    TEXT, -- JSON as in `changes`; null: the proof is still missing
    state    TEXT    NOT NULL CHECK (state IN ('held', 'released', 'resolved')), -- `released`: written to the feed
    PRIMARY KEY (hold_id, resource, id)
);

CREATE INDEX hold_changes_held -- what is held of one resource: each apply, and `users_held` by id
    ON hold_changes (resource, id) WHERE state = 'held';

CREATE TABLE rejects (
    -- Resources that could not be understood: neither mirrored nor taken as absent. The newest ones of each source.
    instance      TEXT NOT NULL, -- `instances.name`
    resource      TEXT NOT NULL CHECK (resource <> ''), -- `User`
    key           TEXT NOT NULL, -- the id, or `sha256:…` of the text where not even that could be read
    reason        TEXT NOT NULL, -- what could not be understood, and where
    body          TEXT NOT NULL, -- the beginning of it, as it arrived
    first_seen_at TEXT NOT NULL, -- by our clock
    last_seen_at  TEXT NOT NULL, -- by our clock
    PRIMARY KEY (instance, resource, key)
);

CREATE TABLE fingerprints (
    -- Not for readers: by what an unchanged resource is known without decoding it.
    instance    TEXT NOT NULL, -- `instances.name`
    resource    TEXT NOT NULL CHECK (resource <> ''), -- `User`
    id          TEXT NOT NULL, -- the resource's id
    fingerprint BLOB NOT NULL, -- of what arrived, when it was applied in full
    PRIMARY KEY (instance, resource, id)
) WITHOUT ROWID;

CREATE TABLE pins (
    -- Not for readers: what else is pinned of an instance beside `instances.url`.
    instance  TEXT NOT NULL PRIMARY KEY, -- `instances.name`
    scim_path TEXT NOT NULL -- where SCIM is below the origin
);

CREATE TABLE source_counts (
    -- Not for readers: counts that would take a scan, kept in the transactions that change them.
    instance TEXT    NOT NULL, -- `instances.name`
    resource TEXT    NOT NULL CHECK (resource <> ''), -- `User`
    living   INTEGER NOT NULL DEFAULT 0 CHECK (living >= 0), -- resources that are not gone
    active   INTEGER NOT NULL DEFAULT 0 CHECK (active >= 0), -- of those, active
    rejected INTEGER NOT NULL DEFAULT 0 CHECK (rejected >= 0), -- rejects, those that `rejects` has no room for included
    PRIMARY KEY (instance, resource)
);

CREATE VIEW active_users AS
    -- Who may be given work: active, not gone, and of an instance that is still linked.
    SELECT *
    FROM users
    WHERE active = 1
      AND gone_at IS NULL
      AND instance NOT IN (SELECT name FROM instances WHERE state = 'unlinked');

CREATE VIEW users_held AS
    -- Users with a change that is kept back, the path, and the hold to approve.
    SELECT holds.instance AS instance, hold_changes.id AS id, hold_changes.path AS path, hold_changes.hold_id AS hold_id
    FROM hold_changes
    JOIN holds ON holds.id = hold_changes.hold_id
    WHERE hold_changes.state = 'held'
      AND hold_changes.resource = 'User'
      AND holds.state = 'open';

CREATE VIEW users_history AS
    -- Each state of each user: it held from `valid_from` until just before `valid_to` (null: it holds now).
    -- Complete from `feed.first_seq` on; of what was trimmed, the newest state is left. Ask for one moment with
    -- `valid_from <= T AND (valid_to IS NULL OR valid_to > T)`.
    SELECT
        past.instance AS instance,
        past.id AS id,
        past.observed_at AS valid_from,
        (SELECT next.observed_at
         FROM changes AS next
         WHERE next.instance = past.instance AND next.resource = past.resource AND next.id = past.id AND next.seq > past.seq
         ORDER BY next.seq
         LIMIT 1) AS valid_to,
        past.seq AS seq,
        past.kind AS kind,
        past.reason AS reason,
        CASE WHEN json_extract(past.after, '$.active') THEN 1 ELSE 0 END AS active,
        past.proof IS NOT NULL AS gone,
        past.changed AS changed,
        past.after AS attributes
    FROM (SELECT * FROM changes_base UNION ALL SELECT * FROM changes) AS past
    WHERE past.resource = 'User';

CREATE VIEW mirror_health AS
    -- One row an instance: is it in order, and how old is what the mirror says?
    SELECT
        instances.name AS instance,
        instances.state AS state,
        instances.last_success_at AS last_success_at,
        max(0, CAST(strftime('%s', 'now') AS INTEGER) - CAST(strftime('%s', instances.last_success_at) AS INTEGER)) AS last_success_age_seconds,
        (SELECT count(*) FROM holds WHERE holds.instance = instances.name AND holds.state = 'open') AS open_holds,
        (SELECT coalesce(sum(rejected), 0) FROM source_counts WHERE source_counts.instance = instances.name) AS rejects
    FROM instances;
