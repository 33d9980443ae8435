-- migrate:up

-- Batches of F-codes. No code is stored: it is made again out of its batch, its serial and the key of `key_version`
-- (`key_fingerprint` tells when that number was given to another key). `id` has 20 bits in a code, `count` 22.
CREATE TABLE fcode_batches (
    id integer GENERATED ALWAYS AS IDENTITY (MAXVALUE 1048575) PRIMARY KEY CHECK (id BETWEEN 1 AND 1048575),
    count integer NOT NULL CHECK (count BETWEEN 1 AND 4194304),
    key_version smallint NOT NULL CHECK (key_version BETWEEN 0 AND 7),
    bound boolean NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz,
    revoked_at timestamptz,
    drop_id text COLLATE "C" NOT NULL,
    allocation_id text COLLATE "C" NOT NULL,
    key_fingerprint text NOT NULL,
    note text,
    FOREIGN KEY (drop_id, allocation_id) REFERENCES allocations (drop_id, id)
);

CREATE INDEX fcode_batches_allocation ON fcode_batches (drop_id, allocation_id);

-- Whom the codes of a bound batch belong to.
CREATE TABLE fcode_bound (
    batch_id integer NOT NULL,
    serial integer NOT NULL,
    member bigint NOT NULL CHECK (member >= 1),
    note text,
    PRIMARY KEY (batch_id, serial)
);

CREATE INDEX fcode_bound_member ON fcode_bound (member);

-- Single codes that are honoured no more.
CREATE TABLE fcode_revoked (
    batch_id integer NOT NULL,
    serial integer NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (batch_id, serial)
);

-- A code that was confirmed is spent for good, also when its unit came back. `fcode` is batch and serial in one number.
DROP INDEX reservations_fcode;
CREATE UNIQUE INDEX reservations_fcode ON reservations (fcode)
    WHERE fcode IS NOT NULL AND state IN ('held', 'confirmed', 'returned');

-- How many codes of these batches of an allocation may still be spent, and so have a unit set aside.
CREATE FUNCTION fcodes_alive(p_drop text, p_allocation text) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT coalesce(sum(b.count - (
        SELECT count(*) FROM reservations r WHERE r.fcode >= b.id::bigint << 22 AND r.fcode < (b.id + 1)::bigint << 22
            AND r.state IN ('held', 'confirmed', 'returned')
    ) - (
        SELECT count(*) FROM fcode_revoked v WHERE v.batch_id = b.id AND NOT EXISTS (
            SELECT 1 FROM reservations r WHERE r.fcode = b.id::bigint << 22 | v.serial
                AND r.state IN ('held', 'confirmed', 'returned'))
    )), 0)
    FROM fcode_batches b WHERE b.drop_id = p_drop AND b.allocation_id = p_allocation AND b.revoked_at IS NULL
        AND (b.expires_at IS NULL OR b.expires_at > clock_timestamp())
$$;

-- migrate:down

DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only: restore a backup instead'; END $$;
