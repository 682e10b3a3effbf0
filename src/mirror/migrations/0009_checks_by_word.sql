-- Version 9: which words a column may have is asked word by word. For `IN` with three words or more SQLite builds a table of them
-- anew with each row that is written: two such tables took three times as long as the row of `changes` itself.
--
-- The same words are allowed as before, so that every row still meets the constraints; no row is touched (see version 3).
--
-- And who has a capital in the id is found without a look at everybody.

PRAGMA writable_schema = ON;

UPDATE sqlite_master
SET sql = replace(sql, 'kind IN (''create'', ''update'', ''deactivate'')',
                       'kind = ''create'' OR kind = ''update'' OR kind = ''deactivate''')
WHERE type = 'table' AND name IN ('changes', 'changes_base', 'hold_changes');

UPDATE sqlite_master
SET sql = replace(sql, 'reason IN (''baseline'', ''new'', ''changed'', ''reactivated'', ''returned'', ''gone'', ''inactive'', ''source_changed'', ''unlinked'', ''removed'')',
                       'reason = ''baseline'' OR reason = ''new'' OR reason = ''changed'' OR reason = ''reactivated'' OR reason = ''returned'' OR reason = ''gone'' OR reason = ''inactive'' OR reason = ''source_changed'' OR reason = ''unlinked'' OR reason = ''removed''')
WHERE type = 'table' AND name = 'changes';

UPDATE sqlite_master
SET sql = replace(sql, 'reason IN (''baseline'', ''new'', ''changed'', ''reactivated'', ''returned'', ''gone'', ''inactive'', ''source_changed'', ''removed'')',
                       'reason = ''baseline'' OR reason = ''new'' OR reason = ''changed'' OR reason = ''reactivated'' OR reason = ''returned'' OR reason = ''gone'' OR reason = ''inactive'' OR reason = ''source_changed'' OR reason = ''removed''')
WHERE type = 'table' AND name = 'changes_base';

UPDATE sqlite_master
SET sql = replace(sql, 'state IN (''held'', ''released'', ''resolved'')',
                       'state = ''held'' OR state = ''released'' OR state = ''resolved''')
WHERE type = 'table' AND name = 'hold_changes';

UPDATE sqlite_master
SET sql = replace(sql, 'members_known IN (''all'', ''cut'', ''unknown'')',
                       'members_known = ''all'' OR members_known = ''cut'' OR members_known = ''unknown''')
WHERE type = 'table' AND name = 'groups';

UPDATE sqlite_master
SET sql = replace(sql, 'matched_by IN (''employee_number'', ''email'', ''user_name'', ''pin'')',
                       'matched_by = ''employee_number'' OR matched_by = ''email'' OR matched_by = ''user_name'' OR matched_by = ''pin''')
WHERE type = 'table' AND name = 'identities';

UPDATE sqlite_master
SET sql = replace(sql, 'state IN (''matched'', ''pinned'', ''ambiguous'', ''missing'', ''gone'')',
                       'state = ''matched'' OR state = ''pinned'' OR state = ''ambiguous'' OR state = ''missing'' OR state = ''gone''')
WHERE type = 'table' AND name = 'identities';

UPDATE sqlite_master
SET sql = replace(sql, 'rule IN (''employee_number'', ''email'', ''user_name'')',
                       'rule = ''employee_number'' OR rule = ''email'' OR rule = ''user_name''')
WHERE type = 'table' AND name IN ('identity_keys', 'user_keys');

PRAGMA writable_schema = RESET; -- and reads it anew

CREATE INDEX users_with_capitals -- whose id may be another's but for case: each full sync
    ON users (instance, id) WHERE id <> lower(id);

CREATE INDEX groups_with_capitals -- the same of groups
    ON groups (instance, id) WHERE id <> lower(id);
