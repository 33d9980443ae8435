-- migrate:up

-- Members' points as of a cut-off. A snapshot never changes once its import has committed (I7).
-- `no` stands for the id in the millions of rows below: 30 % less to store and to compare.
-- `cutoff_offset_s` is the zone in which the operator named the cut-off, so that it is told back in the same one.
CREATE SEQUENCE snapshot_numbers AS integer;
CREATE TABLE snapshots (
    id text COLLATE "C" PRIMARY KEY CHECK (id ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
    no integer NOT NULL UNIQUE,
    cutoff timestamptz NOT NULL,
    cutoff_offset_s integer NOT NULL CHECK (cutoff_offset_s BETWEEN -86399 AND 86399),
    members bigint NOT NULL CHECK (members >= 1),
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by text NOT NULL
);

-- One partition a snapshot: filled before it has an index, indexed at once, attached and closed to writes. That takes a
-- third of the time of inserting into one big indexed table, and an old snapshot is dropped without a trace.
-- `line` is the line of the imported file; it fits where the row would be padded anyway.
CREATE TABLE snapshot_points (
    member bigint NOT NULL CHECK (member >= 1),
    points bigint NOT NULL CHECK (points >= 0),
    line integer NOT NULL,
    snapshot_no integer NOT NULL,
    PRIMARY KEY (snapshot_no, member)
) PARTITION BY LIST (snapshot_no);

-- Who has at least so many points, in the form that the gate holds: computed once, copied at each arming.
-- `token` is in the name of the gate's copy: one that was made for a ledger which has been restored since is not used.
-- `chunks` counts the fields of the gate's hash, one for each thousand of member ids in which someone is eligible.
CREATE TABLE eligible_sets (
    snapshot_id text COLLATE "C" NOT NULL REFERENCES snapshots (id),
    at_least bigint NOT NULL CHECK (at_least >= 0),
    members bigint NOT NULL CHECK (members >= 0),
    chunks bigint NOT NULL CHECK (chunks BETWEEN 0 AND members),
    token uuid NOT NULL DEFAULT gen_random_uuid(),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (snapshot_id, at_least)
);

-- `fields` is a MessagePack array [field, value, field, value, …] of at most 2,000 fields (300 KB).
CREATE TABLE eligible_chunks (
    snapshot_id text COLLATE "C" NOT NULL,
    at_least bigint NOT NULL,
    part integer NOT NULL CHECK (part >= 0),
    fields bytea NOT NULL,
    PRIMARY KEY (snapshot_id, at_least, part),
    FOREIGN KEY (snapshot_id, at_least) REFERENCES eligible_sets (snapshot_id, at_least)
);
-- Copied often, and hardly compressible.
ALTER TABLE eligible_chunks ALTER COLUMN fields SET STORAGE EXTERNAL;

CREATE FUNCTION points_are_immutable() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% on % refused: a points snapshot never changes; import a new one under another name',
        TG_OP, TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation';
END
$$;

CREATE TRIGGER immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON snapshots
    FOR EACH STATEMENT EXECUTE FUNCTION points_are_immutable();
CREATE TRIGGER immutable BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON snapshot_points
    FOR EACH STATEMENT EXECUTE FUNCTION points_are_immutable();
CREATE TRIGGER immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON eligible_sets
    FOR EACH STATEMENT EXECUTE FUNCTION points_are_immutable();
CREATE TRIGGER immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON eligible_chunks
    FOR EACH STATEMENT EXECUTE FUNCTION points_are_immutable();

-- Makes the table that an import fills: the future partition of snapshot `new_no`, still on its own and without an index.
CREATE FUNCTION create_snapshot_points(new_no integer) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    name text := 'snapshot_points_' || new_no;
BEGIN
    EXECUTE format('CREATE TABLE %1$I (LIKE snapshot_points INCLUDING CONSTRAINTS, CHECK (snapshot_no = %2$s))',
        name, new_no);
    EXECUTE format('ALTER TABLE %1$I ALTER COLUMN snapshot_no SET DEFAULT %2$s', name, new_no);
    RETURN name;
END
$$;

-- Indexes the filled table, closes it to every write and attaches it. If a member is in it twice, it drops the table
-- and returns the first line with a member who had a line before, and that line.
CREATE FUNCTION seal_snapshot_points(new_no integer)
RETURNS TABLE (member bigint, line integer, first_line integer) LANGUAGE plpgsql AS $$
DECLARE
    name text := 'snapshot_points_' || new_no;
BEGIN
    BEGIN
        EXECUTE format('ALTER TABLE %I ADD PRIMARY KEY (snapshot_no, member)', name);
    EXCEPTION WHEN unique_violation THEN
        RETURN QUERY EXECUTE format(
            'SELECT * FROM (SELECT member, line, min(line) OVER (PARTITION BY member) AS first_line FROM %I) AS lines
             WHERE line > first_line ORDER BY line LIMIT 1', name);
        EXECUTE format('DROP TABLE %I', name);
        RETURN;
    END;
    EXECUTE format('CREATE TRIGGER immutable BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %I
        FOR EACH STATEMENT EXECUTE FUNCTION points_are_immutable()', name);
    EXECUTE format('ALTER TABLE snapshot_points ATTACH PARTITION %I FOR VALUES IN (%s)', name, new_no);
END
$$;

-- migrate:down

DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only: restore a backup instead'; END $$;
