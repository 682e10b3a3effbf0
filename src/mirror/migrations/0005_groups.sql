-- Version 5: groups, and who is in them.
--
-- Records of the feed and holds get new words. How a table is declared is altered where it stands, as in version 3: each constraint asks
-- for less than before, so that every row still meets it, and no row is touched.

CREATE TABLE groups (
    -- Every group ever seen, as the instance last showed it. One that is gone has `active` 0 and `gone_at`, and is kept.
    -- Who is in it stands in `memberships`.
    instance      TEXT    NOT NULL, -- `instances.name`
    id            TEXT    NOT NULL, -- the SCIM `id`; in ServiceNow the `sys_id`
    external_id   TEXT, -- `externalId`
    display_name  TEXT, -- `displayName`; a group that is deleted and made anew has the same one under another id
    description   TEXT, -- `description`, where the instance shows it
    email         TEXT, -- the group's mail, where the instance shows it
    manager_id    TEXT, -- the manager's id, most often an `id` of `users`; never a foreign key
    manager       TEXT, -- the manager's label
    type          TEXT, -- `type`, where the instance shows it
    active        INTEGER NOT NULL CHECK (active IN (0, 1)), -- 1: in use, which is so where the instance does not say; 0: inactive, or gone
    created_at    TEXT, -- `meta.created`, by the instance's clock
    modified_at   TEXT, -- `meta.lastModified` at the last change that was recorded, by the instance's clock; members do not move it
    attributes    TEXT    NOT NULL, -- JSON: the whole canonical resource without `members`, custom attributes included
    member_count  INTEGER NOT NULL DEFAULT 0 CHECK (member_count >= 0), -- its living rows of `memberships`; makes no record
    members_known TEXT    NOT NULL DEFAULT 'unknown' CHECK (members_known IN ('all', 'cut', 'unknown')), -- `cut`: there may be more than are shown, and those who are not shown stay; `unknown`: the list could not be read; makes no record
    first_seen_at TEXT    NOT NULL, -- when the mirror first saw the group
    changed_at    TEXT    NOT NULL, -- `observed_at` of the newest change record
    changed_seq   INTEGER NOT NULL, -- `seq` of the newest change record
    gone_at       TEXT, -- when the instance was found not to show this group any more; null: it does
    PRIMARY KEY (instance, id)
);

CREATE INDEX groups_by_name -- a group looked up by name, also by readers who write `display_name = … COLLATE NOCASE`
    ON groups (instance, display_name COLLATE NOCASE);

CREATE INDEX groups_known_in_part -- the groups whose members are not all known: `musterd status` and `musterd check`
    ON groups (instance, id) WHERE members_known <> 'all';

CREATE TABLE memberships (
    -- Who is or was in which group. A row whose `ended_at` is null lives.
    instance      TEXT    NOT NULL, -- `instances.name`
    group_id      TEXT    NOT NULL, -- `groups.id`
    member_id     TEXT    NOT NULL, -- the member's id: of a user or a group, which the mirror need not know
    member_type   TEXT    NOT NULL CHECK (member_type IN ('User', 'Group')), -- what the member is; groups may be nested, also in a circle
    label         TEXT, -- the member's name, as it was when the membership began
    first_seen_at TEXT    NOT NULL, -- when the mirror first saw the membership
    changed_seq   INTEGER NOT NULL, -- `seq` of the newest change record
    ended_at      TEXT, -- when the group was found without this member, or gone; null: it lives
    PRIMARY KEY (instance, group_id, member_id)
);

CREATE INDEX memberships_by_member -- the groups that somebody is in, or was: `musterd groups --of`, `memberships_history` of one member
    ON memberships (instance, member_id, group_id);

CREATE INDEX memberships_living -- who is in a group now: each sync of groups
    ON memberships (instance, group_id, member_id) WHERE ended_at IS NULL;

PRAGMA writable_schema = ON;

UPDATE sqlite_master
SET sql = replace(sql, '''source_changed'', ''unlinked'')), -- why;', '''source_changed'', ''unlinked'', ''removed'')), -- why; `removed`: from a group;')
WHERE type = 'table' AND name = 'changes';

UPDATE sqlite_master
SET sql = replace(sql, '''inactive'', ''source_changed'')), -- as in', '''inactive'', ''source_changed'', ''removed'')), -- as in')
WHERE type = 'table' AND name = 'changes_base';

UPDATE sqlite_master
SET sql = replace(sql, 'the same text as `users.attributes`', 'the same text as `users.attributes` and `groups.attributes`; of a membership its columns')
WHERE type = 'table' AND name = 'changes';

UPDATE sqlite_master
SET sql = replace(sql, '''blanking'', ''source_changed'')), -- which guard', '''blanking'', ''source_changed'', ''memberships'', ''group_memberships'')), -- which guard')
WHERE type = 'table' AND name = 'holds';

UPDATE sqlite_master
SET sql = replace(sql, 'the path that would turn empty, of `blanking`', 'of `blanking` the path that would turn empty, of `group_memberships` the group''s id')
WHERE type = 'table' AND name = 'holds';

UPDATE sqlite_master
SET sql = replace(sql, '-- `User`', '-- `User` or `Group`')
WHERE type = 'table' AND name IN ('sources', 'syncs', 'fingerprints', 'rejects');

UPDATE sqlite_master
SET sql = replace(sql, '-- `User`', '-- `User`, `Group` or `Membership`')
WHERE type = 'table' AND name IN ('changes', 'hold_changes', 'source_counts');

UPDATE sqlite_master
SET sql = replace(sql, 'the SCIM resource type: `User`', 'the SCIM resource type: `User` or `Group`')
WHERE type = 'table' AND name = 'sources';

UPDATE sqlite_master
SET sql = replace(sql, '-- the resource''s id' || char(10), '-- the resource''s id; of a membership `GROUP/MEMBER`, `%` and `/` in either as `%25` and `%2F`' || char(10))
WHERE type = 'table' AND name IN ('changes', 'hold_changes');

PRAGMA writable_schema = RESET; -- and reads it anew

CREATE INDEX changes_unlinked -- who left the mirror with the instance and is in no table any more: `memberships_history`
    ON changes (resource, instance, id, seq) WHERE reason = 'unlinked';

CREATE VIEW groups_history AS
    -- Each state of each group while it lived, like `users_history`: it held from `valid_from` until just before `valid_to` (null: it
    -- holds now). Of a group that was gone or removed at a moment there is no row of that moment.
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
        json_extract(past.after, '$.displayName') AS display_name,
        CASE WHEN json_extract(past.after, '$.active') THEN 1 ELSE 0 END AS active,
        past.changed AS changed,
        past.after AS attributes
    FROM (SELECT * FROM changes_base UNION ALL SELECT * FROM changes) AS past
    WHERE past.resource = 'Group' AND past.proof IS NULL AND past.reason NOT IN ('gone', 'unlinked');

CREATE VIEW memberships_history AS
    -- Each time that somebody was in a group: from `valid_from` until just before `valid_to` (null: still), whatever became of
    -- either. Who left and came back has a row for each time.
    -- Complete from `feed.first_seq` on; of a membership that was trimmed, the newest time is left. Ask for one moment with
    -- `valid_from <= T AND (valid_to IS NULL OR valid_to > T)`.
    --
    -- In the feed a membership is found by its id alone. Which there are, of a group or of a member, is found in `memberships`, by an
    -- index each; of those that left with their instance, in the records that say so.
    SELECT
        it.instance AS instance, -- `instances.name`
        it.group_id AS group_id, -- `groups.id`
        it.member_id AS member_id, -- the member's id
        json_extract(past.after, '$.member_type') AS member_type, -- what the member is
        json_extract(past.after, '$.label') AS label, -- the member's name, as it was when this began
        past.observed_at AS valid_from,
        (SELECT next.observed_at
         FROM changes AS next
         WHERE next.instance = past.instance AND next.resource = past.resource AND next.id = past.id AND next.seq > past.seq
         ORDER BY next.seq
         LIMIT 1) AS valid_to,
        past.seq AS seq, -- of the record that says it began
        past.reason AS reason -- why it began
    FROM (
        SELECT instance, group_id, member_id FROM memberships
        UNION ALL
        SELECT
            gone.instance,
            replace(replace(substr(gone.id, 1, instr(gone.id, '/') - 1), '%2F', '/'), '%25', '%'),
            replace(replace(substr(gone.id, instr(gone.id, '/') + 1), '%2F', '/'), '%25', '%')
        FROM changes AS gone
        WHERE gone.reason = 'unlinked' AND gone.resource = 'Membership' AND NOT EXISTS
            (SELECT 1 FROM changes AS newer
             WHERE newer.instance = gone.instance AND newer.resource = gone.resource AND newer.id = gone.id AND newer.seq > gone.seq)
    ) AS it
    CROSS JOIN changes AS past
        ON past.instance = it.instance AND past.resource = 'Membership'
        AND past.id = replace(replace(it.group_id, '%', '%25'), '/', '%2F') || '/' || replace(replace(it.member_id, '%', '%25'), '/', '%2F')
    WHERE past.kind = 'create'
    UNION ALL -- and what was trimmed
    SELECT
        it.instance,
        it.group_id,
        it.member_id,
        json_extract(past.after, '$.member_type'),
        json_extract(past.after, '$.label'),
        past.observed_at,
        (SELECT next.observed_at
         FROM changes AS next
         WHERE next.instance = past.instance AND next.resource = past.resource AND next.id = past.id
         ORDER BY next.seq
         LIMIT 1),
        past.seq,
        past.reason
    FROM (
        SELECT instance, group_id, member_id FROM memberships
        UNION ALL
        SELECT
            gone.instance,
            replace(replace(substr(gone.id, 1, instr(gone.id, '/') - 1), '%2F', '/'), '%25', '%'),
            replace(replace(substr(gone.id, instr(gone.id, '/') + 1), '%2F', '/'), '%25', '%')
        FROM changes AS gone
        WHERE gone.reason = 'unlinked' AND gone.resource = 'Membership' AND NOT EXISTS
            (SELECT 1 FROM changes AS newer
             WHERE newer.instance = gone.instance AND newer.resource = gone.resource AND newer.id = gone.id AND newer.seq > gone.seq)
    ) AS it
    CROSS JOIN changes_base AS past
        ON past.instance = it.instance AND past.resource = 'Membership'
        AND past.id = replace(replace(it.group_id, '%', '%25'), '/', '%2F') || '/' || replace(replace(it.member_id, '%', '%25'), '/', '%2F')
    WHERE past.kind = 'create';
