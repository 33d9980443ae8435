-- migrate:up

-- `held`: set up to wait for its release; paused until then. `hidden`: a rehearsal's copy, in no list, whose orders go
-- nowhere. `fcodes_stopped`: its F-codes are not honoured just now, and stay unspent.
ALTER TABLE drops
    ADD COLUMN held boolean NOT NULL DEFAULT false,
    ADD COLUMN hidden boolean NOT NULL DEFAULT false,
    ADD COLUMN fcodes_stopped boolean NOT NULL DEFAULT false,
    ADD CHECK (paused OR NOT held);

-- While there is a row, the F-codes of all drops are stopped. There is one at most.
CREATE TABLE fcode_stop (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor text NOT NULL,
    reason text NOT NULL
);

-- Rehearsals. The one that runs says so again and again (`beat_at`), so that one whose process died is found out.
CREATE TABLE rehearsals (
    id uuid PRIMARY KEY,
    drop_id text NOT NULL REFERENCES drops,
    copy_id text NOT NULL,
    state text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'done', 'stopped', 'failed')),
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    beat_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz CHECK ((ended_at IS NULL) = (state = 'running')),
    actor text NOT NULL,
    asked jsonb NOT NULL,
    told jsonb NOT NULL DEFAULT '{}'
);
CREATE UNIQUE INDEX rehearsals_one ON rehearsals ((true)) WHERE state = 'running';
CREATE INDEX rehearsals_drop ON rehearsals (drop_id, id);

-- migrate:down

DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only: restore a backup instead'; END $$;
