-- migrate:up

CREATE TYPE reservation_state AS ENUM ('held', 'confirmed', 'cancelled', 'expired', 'returned', 'void');

-- Every writing transaction locks the drop's row first, then allocation rows by id, then reservations by member:
-- the other order deadlocks. The epoch fences commits: it changes with every operator act and every rebuild.
CREATE TABLE drops (
    id text COLLATE "C" PRIMARY KEY CHECK (id ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
    title text NOT NULL CHECK (title <> ''),
    price_amount bigint NOT NULL CHECK (price_amount >= 0),
    list_price_amount bigint CHECK (list_price_amount >= 0),
    currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    list_price_currency text CHECK (list_price_currency ~ '^[A-Z]{3}$'),
    per_member integer NOT NULL CHECK (per_member >= 1),
    hold_seconds integer NOT NULL CHECK (hold_seconds >= 1),
    epoch bigint NOT NULL CHECK (epoch >= 1),
    paused boolean NOT NULL DEFAULT false,
    closed boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    CHECK ((list_price_amount IS NULL) = (list_price_currency IS NULL))
);

-- CHECK (taken <= quantity) is the second lock on stock: even a wrong gate cannot oversell.
-- Half-empty pages keep the hot counter's updates on its page, without touching an index.
CREATE TABLE allocations (
    drop_id text COLLATE "C" NOT NULL REFERENCES drops (id),
    id text COLLATE "C" NOT NULL CHECK (id ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
    position integer NOT NULL,
    quantity integer NOT NULL CHECK (quantity >= 0),
    taken integer NOT NULL DEFAULT 0,
    opens_at timestamptz NOT NULL,
    closes_at timestamptz NOT NULL,
    access jsonb NOT NULL,
    channel text,
    PRIMARY KEY (drop_id, id),
    UNIQUE (drop_id, position),
    CONSTRAINT never_oversold CHECK (taken >= 0 AND taken <= quantity),
    CHECK (closes_at > opens_at)
) WITH (fillfactor = 50);

-- `slot` numbers a member's live reservations in a drop from 1 to per_member: with the unique index below it is the
-- second lock on the member's limit. `payload` is what the idempotency key stands for. `gate_released` is null while
-- the reservation lives, false once it has ended, true when the gate has its unit back.
CREATE TABLE reservations (
    id uuid PRIMARY KEY,
    member bigint NOT NULL CHECK (member >= 1),
    expires_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz,
    epoch bigint NOT NULL,
    fcode bigint,
    quantity integer NOT NULL CHECK (quantity >= 1),
    slot integer NOT NULL CHECK (slot >= 1),
    state reservation_state NOT NULL DEFAULT 'held',
    home_stripe smallint NOT NULL DEFAULT 0,
    unit_stripe smallint NOT NULL DEFAULT 0,
    gate_released boolean,
    drop_id text COLLATE "C" NOT NULL,
    allocation_id text COLLATE "C" NOT NULL,
    idempotency_key text COLLATE "C" CHECK (length(idempotency_key) BETWEEN 1 AND 255),
    payload text COLLATE "C" NOT NULL,
    CHECK ((state IN ('held', 'confirmed')) = (ended_at IS NULL)),
    CHECK ((ended_at IS NULL) = (gate_released IS NULL))
);

-- No foreign key to allocations: it would fire a trigger and lock the hot row once more per reservation;
-- commit_reservations() has the row locked when it inserts.

CREATE UNIQUE INDEX reservations_limit ON reservations (drop_id, member, slot) WHERE state IN ('held', 'confirmed');
CREATE UNIQUE INDEX reservations_key ON reservations (drop_id, member, idempotency_key)
    WHERE idempotency_key IS NOT NULL AND state <> 'void';
CREATE UNIQUE INDEX reservations_fcode ON reservations (fcode)
    WHERE fcode IS NOT NULL AND state IN ('held', 'confirmed');
CREATE INDEX reservations_due ON reservations (expires_at) WHERE state = 'held';
CREATE INDEX reservations_ended ON reservations (member) WHERE state IN ('cancelled', 'expired', 'returned');
CREATE INDEX reservations_outbox ON reservations (drop_id) WHERE NOT gate_released;

CREATE TABLE audit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor text NOT NULL,
    action text NOT NULL,
    subject text NOT NULL,
    detail jsonb NOT NULL DEFAULT '{}'
);

-- The functions below plan without sequential scans, and once: a plan that a session made while the table was small
-- would otherwise read all of it, for every row of a batch, as it grows by thousands a second.

-- Commits grants. Returns one row ('committed', expires_at) when all of them went in, which is the rule; otherwise one
-- row per grant, in their order: committed, exists (with the row it is), stale, sold_out, member_limit, fcode_spent.
CREATE FUNCTION commit_reservations(
    p_drop text, p_ids uuid[], p_members bigint[], p_allocations text[], p_quantities integer[], p_slots integer[],
    p_keys text[], p_payloads text[], p_fcodes bigint[], p_epochs bigint[], p_homes smallint[], p_units smallint[]
) RETURNS TABLE (
    ordinal integer, outcome text, expires_at timestamptz, epoch bigint, paused boolean, existing reservations
) LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_drop drops%ROWTYPE;
    v_count integer := cardinality(p_ids);
    v_inserted uuid[];
    v_expires timestamptz;
    v_free integer;
    v_used integer;
    i integer;
BEGIN
    SELECT * INTO STRICT v_drop FROM drops d WHERE d.id = p_drop FOR NO KEY UPDATE;
    PERFORM 1 FROM allocations a WHERE a.drop_id = p_drop AND a.id = ANY (p_allocations) ORDER BY a.id FOR NO KEY UPDATE;
    v_expires := clock_timestamp() + make_interval(secs => v_drop.hold_seconds);

    -- The rule: a limit of one, everything granted under this epoch, stock for all. One insert decides.
    IF v_drop.per_member = 1 AND v_drop.epoch = ALL (p_epochs) AND NOT EXISTS (
        SELECT 1 FROM (SELECT u.a, sum(u.q) AS q FROM unnest(p_allocations, p_quantities) AS u (a, q) GROUP BY u.a) w
        LEFT JOIN allocations a ON a.drop_id = p_drop AND a.id = w.a
        WHERE a.id IS NULL OR a.taken + w.q > a.quantity
    ) THEN
        WITH inserted AS (
            INSERT INTO reservations (id, drop_id, allocation_id, member, quantity, slot, idempotency_key, payload,
                fcode, epoch, home_stripe, unit_stripe, expires_at)
            SELECT u.id, p_drop, u.a, u.m, u.q, u.s, u.k, u.p, u.f, v_drop.epoch, u.h, u.t, v_expires
            FROM unnest(p_ids, p_allocations, p_members, p_quantities, p_slots, p_keys, p_payloads, p_fcodes,
                p_homes, p_units) AS u (id, a, m, q, s, k, p, f, h, t)
            WHERE u.s = 1 AND u.q = 1
            ON CONFLICT DO NOTHING
            RETURNING reservations.id, reservations.allocation_id, reservations.quantity
        ), counted AS (
            UPDATE allocations a SET taken = a.taken + w.q
            FROM (SELECT n.allocation_id, sum(n.quantity) AS q FROM inserted n GROUP BY n.allocation_id) w
            WHERE a.drop_id = p_drop AND a.id = w.allocation_id
        )
        SELECT array_agg(n.id) INTO v_inserted FROM inserted n;
        IF cardinality(v_inserted) = v_count THEN
            RETURN QUERY SELECT 0, 'committed', v_expires, v_drop.epoch, v_drop.paused, NULL::reservations;
            RETURN;
        END IF;
    END IF;

    -- The exceptions, one by one. The drop's lock keeps every other writer out, so what is read here holds.
    FOR i IN 1 .. v_count LOOP
        ordinal := i; expires_at := v_expires; epoch := v_drop.epoch; paused := v_drop.paused AND NOT v_drop.closed; existing := NULL;
        IF p_ids[i] = ANY (v_inserted) THEN
            v_inserted := array_remove(v_inserted, p_ids[i]);
            outcome := 'committed'; RETURN NEXT; CONTINUE;
        END IF;
        SELECT * INTO existing FROM reservations r WHERE r.id = p_ids[i];
        IF NOT FOUND AND p_keys[i] IS NOT NULL THEN
            SELECT * INTO existing FROM reservations r WHERE r.member = p_members[i] AND r.drop_id = p_drop
                AND r.idempotency_key = p_keys[i] AND r.state <> 'void';
        END IF;
        IF FOUND THEN outcome := 'exists'; RETURN NEXT; CONTINUE; END IF;
        existing := NULL;
        IF p_epochs[i] <> v_drop.epoch THEN outcome := 'stale'; RETURN NEXT; CONTINUE; END IF;
        SELECT a.quantity - a.taken INTO v_free FROM allocations a WHERE a.drop_id = p_drop AND a.id = p_allocations[i];
        IF v_free IS NULL OR v_free < p_quantities[i] THEN outcome := 'sold_out'; RETURN NEXT; CONTINUE; END IF;
        SELECT coalesce(sum(r.quantity), 0) INTO v_used FROM reservations r
            WHERE r.member = p_members[i] AND r.drop_id = p_drop AND r.state IN ('held', 'confirmed');
        IF v_used + p_quantities[i] > v_drop.per_member OR p_slots[i] > v_drop.per_member THEN
            outcome := 'member_limit'; RETURN NEXT; CONTINUE;
        END IF;
        INSERT INTO reservations (id, drop_id, allocation_id, member, quantity, slot, idempotency_key, payload,
            fcode, epoch, home_stripe, unit_stripe, expires_at)
        VALUES (p_ids[i], p_drop, p_allocations[i], p_members[i], p_quantities[i], p_slots[i], p_keys[i],
            p_payloads[i], p_fcodes[i], v_drop.epoch, p_homes[i], p_units[i], v_expires)
        ON CONFLICT DO NOTHING;
        IF FOUND THEN
            UPDATE allocations a SET taken = a.taken + p_quantities[i] WHERE a.drop_id = p_drop AND a.id = p_allocations[i];
            outcome := 'committed';
        ELSIF EXISTS (SELECT 1 FROM reservations r WHERE r.member = p_members[i] AND r.drop_id = p_drop
            AND r.slot = p_slots[i] AND r.state IN ('held', 'confirmed')) THEN
            outcome := 'member_limit';
        ELSE
            outcome := 'fcode_spent';
        END IF;
        RETURN NEXT;
    END LOOP;
END
$$;

-- A tombstone per id, so that a commit that is still on its way finds it and inserts nothing. Returns what now stands
-- under each id: the tombstone, or the reservation that was quicker.
CREATE FUNCTION void_grants(
    p_drop text, p_ids uuid[], p_members bigint[], p_allocations text[], p_quantities integer[], p_slots integer[],
    p_keys text[], p_payloads text[], p_epoch bigint
) RETURNS TABLE (id uuid, member bigint, state reservation_state)
LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    PERFORM 1 FROM drops d WHERE d.id = p_drop FOR NO KEY UPDATE;
    INSERT INTO reservations (id, drop_id, allocation_id, member, quantity, slot, idempotency_key, payload, epoch,
        state, expires_at, ended_at, gate_released)
    SELECT u.id, p_drop, u.a, u.m, u.q, u.s, u.k, u.p, p_epoch, 'void', clock_timestamp(), clock_timestamp(), true
    FROM unnest(p_ids, p_allocations, p_members, p_quantities, p_slots, p_keys, p_payloads) AS u (id, a, m, q, s, k, p)
    ORDER BY u.m
    ON CONFLICT DO NOTHING;
    RETURN QUERY SELECT r.id, r.member, r.state FROM reservations r WHERE r.id = ANY (p_ids);
END
$$;

-- Ends holds of one drop: cancels those named, or expires what is due by this server's clock. Returns what it ended.
CREATE FUNCTION end_holds(p_drop text, p_ids uuid[], p_to reservation_state)
RETURNS SETOF reservations
LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    PERFORM 1 FROM drops d WHERE d.id = p_drop FOR NO KEY UPDATE;
    PERFORM 1 FROM allocations a WHERE a.drop_id = p_drop AND a.id IN (
        SELECT r.allocation_id FROM reservations r WHERE r.id = ANY (p_ids)
    ) ORDER BY a.id FOR NO KEY UPDATE;
    PERFORM 1 FROM reservations r WHERE r.id = ANY (p_ids) ORDER BY r.member FOR NO KEY UPDATE;
    RETURN QUERY
    WITH ended AS (
        UPDATE reservations r SET state = p_to, ended_at = clock_timestamp(), gate_released = false
        WHERE r.id = ANY (p_ids) AND r.drop_id = p_drop AND r.state = 'held'
            AND (p_to <> 'expired' OR r.expires_at <= clock_timestamp())
        RETURNING r.*
    ), returned AS (
        UPDATE allocations a SET taken = a.taken - w.q
        FROM (SELECT e.allocation_id, sum(e.quantity) AS q FROM ended e GROUP BY e.allocation_id) w
        WHERE a.drop_id = p_drop AND a.id = w.allocation_id
    )
    SELECT * FROM ended;
END
$$;

-- The gate has these units back. Holds only if the gate that took them is the one the ledger counts on now.
CREATE FUNCTION mark_released(p_drop text, p_ids uuid[], p_epoch bigint) RETURNS integer
LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_count integer;
BEGIN
    PERFORM 1 FROM drops d WHERE d.id = p_drop AND d.epoch = p_epoch FOR NO KEY UPDATE;
    IF NOT FOUND THEN RETURN 0; END IF;
    UPDATE reservations r SET gate_released = true
    WHERE r.id = ANY (p_ids) AND r.drop_id = p_drop AND r.gate_released = false;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END
$$;

-- A new epoch: later than the old one, and never one that a restored server could hand out again.
CREATE FUNCTION next_epoch(p_epoch bigint) RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT greatest(p_epoch + 1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)
$$;

-- migrate:down

DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only: restore a backup instead'; END $$;
