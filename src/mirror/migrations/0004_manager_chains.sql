-- Version 4: who is above a user, and who is below.
--
-- A WHERE is not carried into a recursive query, so that one over all users would walk from everybody before it left out all but
-- one. Each view begins with a row of `users` in place of that, and walks from it alone. All walks compare ids exactly, end in a cycle,
-- and take a step a person: a chain of thousands costs thousands of steps.

CREATE INDEX users_by_manager -- whose manager somebody is: `direct_reports` and `org_size` of one user, which read nothing else
    ON users (instance, manager_id, id) -- the instance first: a sync then writes few of its pages, and not one anywhere for each user
    WHERE manager_id IS NOT NULL; -- so that a query by the instance alone cannot take it in the place of a better one

CREATE VIEW manager_chain AS
    -- The chain of managers above each user of `users`, whatever they are: a row a manager, the direct one first. It ends above whoever
    -- has none, at an id that the mirror does not know, or at the first person who was met before. The first living manager, who may
    -- approve, is the row of the state `ok` that has the lowest depth, where `active_users` has the manager. Ask for one
    -- `instance` and `id`: for everybody it takes as many steps as all chains have together.
    SELECT
        start.instance AS instance, -- `instances.name`
        start.id AS id, -- the user whose chain it is
        json_extract(step.value, '$[0]') AS depth, -- 1: the user's own manager, 2: the manager's manager, …
        below.manager_id AS manager_id, -- the manager's id
        coalesce(above.display_name, below.manager, above.user_name) AS manager, -- the manager's name; of `missing` the label that is left
        above.email AS email, -- the manager's, like all that follows
        above.title AS title, -- null where it is `missing`
        above.active AS active, -- as in `users`, null where it is `missing`
        CASE -- the first that is true
            WHEN above.id IS NULL THEN 'missing' -- the mirror does not know this id
            WHEN above.id = below.id THEN 'self' -- who is the row before, or the user, is their own manager; always the last row
            WHEN json_extract(step.value, '$[2]') THEN 'cycle' -- the user, or a manager of a row before; always the last row
            WHEN above.active = 0 OR above.gone_at IS NOT NULL THEN 'inactive' -- or gone; the chain goes on as it was last known
            ELSE 'ok' -- a living manager
        END AS state
    FROM users AS start
    CROSS JOIN json_each((
        WITH RECURSIVE
            met (person, manager_id) AS ( -- the user and the managers, each once
                SELECT start.rowid, start.manager_id
                UNION
                SELECT boss.rowid, boss.manager_id
                FROM met
                CROSS JOIN users AS boss ON boss.instance = start.instance AND boss.id = met.manager_id),
            up (depth, person, manager_id, n) AS ( -- the same in their order: each is the one below a row
                SELECT 1, start.rowid, start.manager_id, (SELECT count(*) FROM met)
                UNION ALL
                SELECT up.depth + 1, boss.rowid, boss.manager_id, up.n
                FROM up
                CROSS JOIN users AS boss ON boss.instance = start.instance AND boss.id = up.manager_id
                WHERE up.depth < up.n)
        SELECT json_group_array(json_array(depth, person, depth = n)) FROM up)) AS step
    CROSS JOIN users AS below ON below.rowid = json_extract(step.value, '$[1]')
    LEFT JOIN users AS above ON above.instance = below.instance AND above.id = below.manager_id
    WHERE below.manager_id IS NOT NULL;

CREATE VIEW direct_reports AS
    -- Who has whom for a manager, whatever both are: join `active_users` for living people.
    SELECT
        instance, -- `instances.name`
        manager_id, -- the manager's id, which `users` need not have
        id -- the user's id: the same where somebody is their own manager
    FROM users
    WHERE manager_id IS NOT NULL;

CREATE VIEW org_size AS
    -- How many are below each user of `users`: those in whose `manager_chain` the user is, without the user. In a cycle everybody is below
    -- everybody. Inactive and gone people count like others. It takes a step a person counted.
    SELECT
        instance, -- `instances.name`
        id, -- the user's id
        (WITH RECURSIVE below (id) AS ( -- each once: who has one manager can be met twice only by way of the user
            SELECT head.id
            UNION ALL
            SELECT report.id
            FROM below
            CROSS JOIN users AS report
                ON report.instance = head.instance AND report.manager_id = below.id AND report.id <> head.id)
         SELECT count(*) - 1 FROM below) AS size -- of all levels
    FROM users AS head;
