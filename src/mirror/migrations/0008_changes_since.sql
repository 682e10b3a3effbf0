-- Version 8: what was changed since a time is found without the records of the baseline.

CREATE INDEX changes_since -- what became of the resources of one kind from a `seq` on: the guards, of what left within their windows
    ON changes (instance, resource, seq) WHERE reason <> 'baseline';
