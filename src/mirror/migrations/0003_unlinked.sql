-- Version 3: the users of an instance that is not linked any more may leave the mirror, with a record of the reason `unlinked`
-- each (`musterd unlink --drop`).
--
-- How a table is declared is a text. It is altered where it stands, as SQLite's documentation of ALTER TABLE has it in section 7 for
-- constraints that are taken away: the new one asks for less, so that every row still meets it, and no row is touched. To copy
-- `changes` would take the room of the whole feed twice, and the indexes that readers have added. `changes_base` never
-- has such a record.

PRAGMA writable_schema = ON;

UPDATE sqlite_master
SET sql = replace(sql, '''inactive'', ''source_changed'')), -- why',
                       '''inactive'', ''source_changed'', ''unlinked'')), -- why; `unlinked`: removed from `users` with all others of the instance')
WHERE type = 'table' AND name = 'changes';

UPDATE sqlite_master
SET sql = replace(sql, 'the sync that wrote it: `syncs.id`', 'the sync that wrote it: `syncs.id`; of `unlinked` a number that no sync has')
WHERE type = 'table' AND name = 'changes';

UPDATE sqlite_master
SET sql = replace(sql, 'Nobody is removed: who is gone has `active` 0 and `gone_at`.',
                       'Who is gone has `active` 0 and `gone_at`, and stays.
    -- All users of an instance are removed by `musterd unlink --drop`, with a record of the reason `unlinked` each.')
WHERE type = 'table' AND name = 'users';

PRAGMA writable_schema = RESET; -- and reads it anew

DROP VIEW users_history;

CREATE VIEW users_history AS
    -- Each state of each user: it held from `valid_from` until just before `valid_to` (null: it holds now).
    -- Complete from `feed.first_seq` on; of what was trimmed, the newest state is left. Ask for one moment with
    -- `valid_from <= T AND (valid_to IS NULL OR valid_to > T)`. A user who was removed has no state from then on.
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
    WHERE past.resource = 'User' AND past.reason <> 'unlinked';
