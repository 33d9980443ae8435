-- What the migrations make of an empty database. Written by `make schema`; a test compares.

SET check_function_bodies = false;

CREATE TYPE public.order_state AS ENUM (
    'queued',
    'delivered',
    'dead'
);

CREATE TYPE public.pgqueuer_status AS ENUM (
    'queued',
    'picked',
    'successful',
    'exception',
    'canceled',
    'deleted',
    'failed'
);

CREATE TYPE public.reservation_state AS ENUM (
    'held',
    'confirmed',
    'cancelled',
    'expired',
    'returned',
    'void'
);

CREATE TABLE public.reservations (
    id uuid NOT NULL,
    member bigint NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    ended_at timestamp with time zone,
    epoch bigint NOT NULL,
    fcode bigint,
    quantity integer NOT NULL,
    slot integer NOT NULL,
    state public.reservation_state DEFAULT 'held'::public.reservation_state NOT NULL,
    home_stripe smallint DEFAULT 0 NOT NULL,
    unit_stripe smallint DEFAULT 0 NOT NULL,
    gate_released boolean,
    drop_id text NOT NULL COLLATE pg_catalog."C",
    allocation_id text NOT NULL COLLATE pg_catalog."C",
    idempotency_key text COLLATE pg_catalog."C",
    payload text NOT NULL COLLATE pg_catalog."C",
    order_id uuid,
    keeps_slot boolean DEFAULT false NOT NULL,
    CONSTRAINT reservations_check CHECK (((state = ANY (ARRAY['held'::public.reservation_state, 'confirmed'::public.reservation_state])) = (ended_at IS NULL))),
    CONSTRAINT reservations_check1 CHECK (((ended_at IS NULL) = (gate_released IS NULL))),
    CONSTRAINT reservations_check2 CHECK (((order_id IS NOT NULL) = (state = ANY (ARRAY['confirmed'::public.reservation_state, 'returned'::public.reservation_state])))),
    CONSTRAINT reservations_check3 CHECK (((state = 'returned'::public.reservation_state) OR (NOT keeps_slot))),
    CONSTRAINT reservations_idempotency_key_check CHECK (((length(idempotency_key) >= 1) AND (length(idempotency_key) <= 255))),
    CONSTRAINT reservations_member_check CHECK ((member >= 1)),
    CONSTRAINT reservations_quantity_check CHECK ((quantity >= 1)),
    CONSTRAINT reservations_slot_check CHECK ((slot >= 1))
);

CREATE FUNCTION public.commit_reservations(p_drop text, p_ids uuid[], p_members bigint[], p_allocations text[], p_quantities integer[], p_slots integer[], p_keys text[], p_payloads text[], p_fcodes bigint[], p_epochs bigint[], p_homes smallint[], p_units smallint[]) RETURNS TABLE(ordinal integer, outcome text, expires_at timestamp with time zone, epoch bigint, paused boolean, existing public.reservations)
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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
            WHERE r.member = p_members[i] AND r.drop_id = p_drop AND (r.state IN ('held', 'confirmed') OR r.keeps_slot);
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
            AND r.slot = p_slots[i] AND (r.state IN ('held', 'confirmed') OR r.keeps_slot)) THEN
            outcome := 'member_limit';
        ELSE
            outcome := 'fcode_spent';
        END IF;
        RETURN NEXT;
    END LOOP;
END
$$;

CREATE FUNCTION public.confirm_reservations(p_ids uuid[], p_orders uuid[], p_members bigint[], p_payments text[], p_amounts bigint[], p_currencies text[]) RETURNS TABLE(ordinal integer, outcome text, queued uuid, due bigint, due_currency text, reservation public.reservations)
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
DECLARE
    v_now timestamptz;
    v_done integer[];
    v_paid payments%ROWTYPE;
    i integer;
BEGIN
    PERFORM 1 FROM reservations r WHERE r.id = ANY (p_ids) ORDER BY r.member, r.id FOR NO KEY UPDATE;
    v_now := clock_timestamp();

    -- The rule: a hold that still runs, asked for by its member, or paid in full by a payment that is new.
    -- (The holds asked for are read by their ids first: a plan that begins with what is held would read all of it.)
    WITH hold AS MATERIALIZED (
        SELECT r.* FROM reservations r WHERE r.id = ANY (p_ids)
    ), fit AS (
        SELECT DISTINCT ON (t.id) t.*, d.price_amount, d.currency
        FROM unnest(p_ids, p_orders, p_members, p_payments, p_amounts, p_currencies)
            WITH ORDINALITY AS t (id, o, m, p, a, c, n)
        JOIN hold r ON r.id = t.id JOIN drops d ON d.id = r.drop_id
        WHERE r.state = 'held' AND r.expires_at > v_now AND CASE WHEN t.p IS NULL THEN t.m = r.member
            ELSE t.a = d.price_amount * r.quantity AND t.c = d.currency
                AND NOT EXISTS (SELECT 1 FROM payments p WHERE p.id = t.p) END
        ORDER BY t.id, t.n
    ), paid AS (
        INSERT INTO payments (id, reservation_id, amount, currency, applied)
        SELECT f.p, f.id, f.a, f.c, true FROM fit f WHERE f.p IS NOT NULL ORDER BY f.p
        ON CONFLICT (id) DO NOTHING RETURNING payments.reservation_id
    ), confirmed AS (
        UPDATE reservations r SET state = 'confirmed', order_id = f.o FROM fit f
        WHERE r.id = f.id AND (f.p IS NULL OR r.id IN (SELECT p.reservation_id FROM paid p))
        RETURNING f.*
    ), ordered AS (
        INSERT INTO orders (id, event, reservation_id, amount, currency, payment_id)
        SELECT c.o, 'order.confirmed', c.id, c.price_amount, c.currency, c.p FROM confirmed c
    )
    SELECT array_agg(c.n::integer) INTO v_done FROM confirmed c;
    RETURN QUERY
    SELECT u.n::integer, 'confirmed', u.o, NULL::bigint, NULL::text, r
    FROM unnest(p_ids, p_orders) WITH ORDINALITY AS u (id, o, n) JOIN reservations r ON r.id = u.id
    WHERE u.n = ANY (v_done);
    IF cardinality(v_done) = cardinality(p_ids) THEN RETURN; END IF;

    -- The exceptions, one by one; payments in the order in which everybody writes them.
    FOR i IN SELECT u.n FROM unnest(p_payments) WITH ORDINALITY AS u (p, n) ORDER BY u.p, u.n LOOP
        CONTINUE WHEN i = ANY (v_done);
        ordinal := i; queued := NULL; due := NULL; due_currency := NULL;
        SELECT * INTO reservation FROM reservations r WHERE r.id = p_ids[i] AND r.state <> 'void'
            AND (p_payments[i] IS NOT NULL OR r.member = p_members[i]);
        IF NOT FOUND THEN outcome := 'not_found'; RETURN NEXT; CONTINUE; END IF;
        IF p_payments[i] IS NULL THEN
            outcome := CASE reservation.state WHEN 'confirmed' THEN 'again' WHEN 'held' THEN 'expired'
                WHEN 'expired' THEN 'expired' ELSE 'conflict' END;
            RETURN NEXT; CONTINUE;
        END IF;
        SELECT * INTO v_paid FROM payments p WHERE p.id = p_payments[i];
        IF FOUND THEN
            outcome := CASE
                WHEN (v_paid.reservation_id, v_paid.amount, v_paid.currency) <> (p_ids[i], p_amounts[i], p_currencies[i])
                THEN 'payment_taken'
                WHEN v_paid.applied THEN 'again'
                WHEN reservation.state IN ('confirmed', 'returned') THEN 'conflict' ELSE 'expired' END;
            RETURN NEXT; CONTINUE;
        END IF;
        IF reservation.state = 'held' AND reservation.expires_at > v_now THEN
            SELECT d.price_amount * reservation.quantity, d.currency INTO due, due_currency
                FROM drops d WHERE d.id = reservation.drop_id;
            IF (due, due_currency) <> (p_amounts[i], p_currencies[i]) THEN
                outcome := 'wrong_amount'; RETURN NEXT; CONTINUE;
            ELSIF cardinality(p_ids) = 1 THEN  -- somebody wrote this payment since: they are through in a moment
                RAISE serialization_failure USING MESSAGE = 'this payment is just being written';
            END IF;
            RETURN QUERY SELECT i, c.outcome, c.queued, c.due, c.due_currency, c.reservation FROM confirm_reservations(
                p_ids[i:i], p_orders[i:i], p_members[i:i], p_payments[i:i], p_amounts[i:i], p_currencies[i:i]) c;
            CONTINUE;
        END IF;
        -- Nobody keeps this money: the hold has ended, or has been paid for.
        outcome := CASE WHEN reservation.state IN ('confirmed', 'returned') THEN 'conflict' ELSE 'expired' END;
        INSERT INTO payments (id, reservation_id, amount, currency, applied)
        VALUES (p_payments[i], p_ids[i], p_amounts[i], p_currencies[i], false) ON CONFLICT (id) DO NOTHING;
        IF FOUND THEN
            queued := p_orders[i];
            INSERT INTO orders (id, event, reservation_id, amount, currency, payment_id)
            VALUES (queued, 'payment.refund_due', p_ids[i], p_amounts[i], p_currencies[i], p_payments[i]);
        ELSE
            outcome := 'payment_taken';
        END IF;
        RETURN NEXT;
    END LOOP;
END
$$;

CREATE FUNCTION public.create_snapshot_points(new_no integer) RETURNS text
    LANGUAGE plpgsql
    AS $_$
DECLARE
    name text := 'snapshot_points_' || new_no;
BEGIN
    EXECUTE format('CREATE TABLE %1$I (LIKE snapshot_points INCLUDING CONSTRAINTS, CHECK (snapshot_no = %2$s))',
        name, new_no);
    EXECUTE format('ALTER TABLE %1$I ALTER COLUMN snapshot_no SET DEFAULT %2$s', name, new_no);
    RETURN name;
END
$_$;

CREATE FUNCTION public.end_holds(p_drop text, p_ids uuid[], p_to public.reservation_state) RETURNS SETOF public.reservations
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
BEGIN
    PERFORM 1 FROM drops d WHERE d.id = p_drop FOR NO KEY UPDATE;
    PERFORM 1 FROM allocations a WHERE a.drop_id = p_drop AND a.id IN (
        SELECT r.allocation_id FROM reservations r WHERE r.id = ANY (p_ids)
    ) ORDER BY a.id FOR NO KEY UPDATE;
    PERFORM 1 FROM reservations r WHERE r.id = ANY (p_ids) ORDER BY r.member, r.id FOR NO KEY UPDATE;
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

CREATE FUNCTION public.fcodes_alive(p_drop text, p_allocation text) RETURNS bigint
    LANGUAGE sql STABLE
    AS $$
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

CREATE FUNCTION public.fn_pgqueuer_changed() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
DECLARE
    to_emit BOOLEAN := false;  -- Flag to decide whether to emit a notification
BEGIN
    -- Check operation type and set the emit flag accordingly
    IF TG_OP = 'UPDATE' AND OLD IS DISTINCT FROM NEW THEN
        to_emit := true;
    ELSIF TG_OP = 'DELETE' THEN
        to_emit := true;
    ELSIF TG_OP = 'INSERT' THEN
        to_emit := true;
    ELSIF TG_OP = 'TRUNCATE' THEN
        to_emit := true;
    END IF;

    -- Perform notification if the emit flag is set
    IF to_emit THEN
        PERFORM pg_notify(
            'ch_pgqueuer',
            json_build_object(
                'channel', 'ch_pgqueuer',
                'operation', lower(TG_OP),
                'sent_at', NOW(),
                'table', TG_TABLE_NAME,
                'type', 'table_changed_event'
            )::text
        );
    END IF;

    -- Return appropriate value based on the operation
    IF TG_OP IN ('INSERT', 'UPDATE') THEN
        RETURN NEW;
    ELSIF TG_OP = 'DELETE' THEN
        RETURN OLD;
    ELSE
        RETURN NULL; -- For TRUNCATE and other non-row-specific contexts
    END IF;

END;
$$;

CREATE FUNCTION public.mark_released(p_drop text, p_ids uuid[], p_epoch bigint) RETURNS integer
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
DECLARE
    v_count integer;
BEGIN
    PERFORM 1 FROM drops d WHERE d.id = p_drop AND d.epoch = p_epoch FOR NO KEY UPDATE;
    IF NOT FOUND THEN RETURN 0; END IF;
    PERFORM 1 FROM reservations r WHERE r.id = ANY (p_ids) ORDER BY r.member, r.id FOR NO KEY UPDATE;
    UPDATE reservations r SET gate_released = true
    WHERE r.id = ANY (p_ids) AND r.drop_id = p_drop AND r.gate_released = false;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END
$$;

CREATE FUNCTION public.next_epoch(p_epoch bigint) RETURNS bigint
    LANGUAGE sql
    AS $$
    SELECT greatest(p_epoch + 1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)
$$;

CREATE FUNCTION public.points_are_immutable() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    RAISE EXCEPTION '% on % refused: a points snapshot never changes; import a new one under another name',
        TG_OP, TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation';
END
$$;

CREATE FUNCTION public.return_reservation(p_id uuid, p_order uuid, p_restock boolean, p_to text, p_detail jsonb) RETURNS TABLE(outcome text, bumped boolean, reservation public.reservations)
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
DECLARE
    v_drop drops%ROWTYPE;
    v_to text;
BEGIN
    bumped := false;
    SELECT d.* INTO v_drop FROM drops d JOIN reservations r ON r.drop_id = d.id
        WHERE r.id = p_id AND r.state <> 'void' FOR NO KEY UPDATE OF d;
    IF NOT FOUND THEN outcome := 'not_found'; RETURN NEXT; RETURN; END IF;
    PERFORM 1 FROM allocations a WHERE a.drop_id = v_drop.id
        AND a.id IN (p_to, (SELECT r.allocation_id FROM reservations r WHERE r.id = p_id)) ORDER BY a.id FOR NO KEY UPDATE;
    SELECT * INTO STRICT reservation FROM reservations r WHERE r.id = p_id FOR NO KEY UPDATE;
    IF reservation.state = 'returned' THEN outcome := 'again'; RETURN NEXT; RETURN; END IF;
    IF reservation.state <> 'confirmed' THEN outcome := 'conflict'; RETURN NEXT; RETURN; END IF;
    v_to := coalesce(p_to, reservation.allocation_id);
    IF NOT EXISTS (SELECT 1 FROM allocations a WHERE a.drop_id = v_drop.id AND a.id = v_to) THEN
        outcome := 'no_allocation'; RETURN NEXT; RETURN;
    END IF;
    UPDATE reservations r SET state = 'returned', ended_at = clock_timestamp(), gate_released = false,
        keeps_slot = NOT v_drop.rebuy_after_return WHERE r.id = p_id RETURNING r.* INTO reservation;
    bumped := NOT p_restock OR v_to <> reservation.allocation_id;
    UPDATE allocations a SET taken = a.taken - reservation.quantity,
        quantity = a.quantity - CASE WHEN bumped THEN reservation.quantity ELSE 0 END
        WHERE a.drop_id = v_drop.id AND a.id = reservation.allocation_id;
    IF bumped THEN
        UPDATE allocations a SET quantity = a.quantity + reservation.quantity
            WHERE p_restock AND a.drop_id = v_drop.id AND a.id = v_to;
        UPDATE drops d SET epoch = next_epoch(d.epoch) WHERE d.id = v_drop.id;
    END IF;
    INSERT INTO orders (id, event, reservation_id, amount, currency, detail)
    VALUES (p_order, 'order.returned', p_id, v_drop.price_amount, v_drop.currency, p_detail);
    outcome := 'returned'; RETURN NEXT;
END
$$;

CREATE FUNCTION public.seal_snapshot_points(new_no integer) RETURNS TABLE(member bigint, line integer, first_line integer)
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION public.void_grants(p_drop text, p_ids uuid[], p_members bigint[], p_allocations text[], p_quantities integer[], p_slots integer[], p_keys text[], p_payloads text[], p_epoch bigint) RETURNS TABLE(id uuid, member bigint, state public.reservation_state)
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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

CREATE TABLE public.allocations (
    drop_id text NOT NULL COLLATE pg_catalog."C",
    id text NOT NULL COLLATE pg_catalog."C",
    "position" integer NOT NULL,
    quantity integer NOT NULL,
    taken integer DEFAULT 0 NOT NULL,
    opens_at timestamp with time zone NOT NULL,
    closes_at timestamp with time zone NOT NULL,
    access jsonb NOT NULL,
    channel text,
    CONSTRAINT allocations_check CHECK ((closes_at > opens_at)),
    CONSTRAINT allocations_id_check CHECK ((id ~ '^[a-z0-9][a-z0-9-]{0,62}$'::text)),
    CONSTRAINT allocations_quantity_check CHECK ((quantity >= 0)),
    CONSTRAINT never_oversold CHECK (((taken >= 0) AND (taken <= quantity)))
)
WITH (fillfactor='50');

CREATE TABLE public.audit (
    id bigint NOT NULL,
    at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    actor text NOT NULL,
    action text NOT NULL,
    subject text NOT NULL,
    detail jsonb DEFAULT '{}'::jsonb NOT NULL
);

ALTER TABLE public.audit ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.audit_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.disabled_endpoints (
    url text NOT NULL,
    at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

CREATE TABLE public.drop_words (
    drop_id text NOT NULL COLLATE pg_catalog."C",
    texts jsonb NOT NULL,
    picture text COLLATE pg_catalog."C"
);

CREATE TABLE public.drops (
    id text NOT NULL COLLATE pg_catalog."C",
    title text NOT NULL,
    price_amount bigint NOT NULL,
    list_price_amount bigint,
    currency text NOT NULL,
    list_price_currency text,
    per_member integer NOT NULL,
    hold_seconds integer NOT NULL,
    epoch bigint NOT NULL,
    paused boolean DEFAULT false NOT NULL,
    closed boolean DEFAULT false NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    rebuy_after_return boolean DEFAULT false NOT NULL,
    stripes integer DEFAULT 1 NOT NULL,
    held boolean DEFAULT false NOT NULL,
    hidden boolean DEFAULT false NOT NULL,
    fcodes_stopped boolean DEFAULT false NOT NULL,
    CONSTRAINT drops_check CHECK (((list_price_amount IS NULL) = (list_price_currency IS NULL))),
    CONSTRAINT drops_check1 CHECK ((paused OR (NOT held))),
    CONSTRAINT drops_currency_check CHECK ((currency ~ '^[A-Z]{3}$'::text)),
    CONSTRAINT drops_epoch_check CHECK ((epoch >= 1)),
    CONSTRAINT drops_hold_seconds_check CHECK ((hold_seconds >= 1)),
    CONSTRAINT drops_id_check CHECK ((id ~ '^[a-z0-9][a-z0-9-]{0,62}$'::text)),
    CONSTRAINT drops_list_price_amount_check CHECK ((list_price_amount >= 0)),
    CONSTRAINT drops_list_price_currency_check CHECK ((list_price_currency ~ '^[A-Z]{3}$'::text)),
    CONSTRAINT drops_per_member_check CHECK ((per_member >= 1)),
    CONSTRAINT drops_price_amount_check CHECK ((price_amount >= 0)),
    CONSTRAINT drops_stripes_check CHECK (((stripes >= 1) AND (stripes <= 64))),
    CONSTRAINT drops_title_check CHECK ((title <> ''::text))
);

CREATE TABLE public.eligible_chunks (
    snapshot_id text NOT NULL COLLATE pg_catalog."C",
    at_least bigint NOT NULL,
    part integer NOT NULL,
    fields bytea NOT NULL,
    CONSTRAINT eligible_chunks_part_check CHECK ((part >= 0))
);
ALTER TABLE ONLY public.eligible_chunks ALTER COLUMN fields SET STORAGE EXTERNAL;

CREATE TABLE public.eligible_sets (
    snapshot_id text NOT NULL COLLATE pg_catalog."C",
    at_least bigint NOT NULL,
    members bigint NOT NULL,
    chunks bigint NOT NULL,
    token uuid DEFAULT gen_random_uuid() NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT eligible_sets_at_least_check CHECK ((at_least >= 0)),
    CONSTRAINT eligible_sets_check CHECK (((chunks >= 0) AND (chunks <= members))),
    CONSTRAINT eligible_sets_members_check CHECK ((members >= 0))
);

CREATE TABLE public.fcode_batches (
    id integer NOT NULL,
    count integer NOT NULL,
    key_version smallint NOT NULL,
    bound boolean NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    expires_at timestamp with time zone,
    revoked_at timestamp with time zone,
    drop_id text NOT NULL COLLATE pg_catalog."C",
    allocation_id text NOT NULL COLLATE pg_catalog."C",
    key_fingerprint text NOT NULL,
    note text,
    CONSTRAINT fcode_batches_count_check CHECK (((count >= 1) AND (count <= 4194304))),
    CONSTRAINT fcode_batches_id_check CHECK (((id >= 1) AND (id <= 1048575))),
    CONSTRAINT fcode_batches_key_version_check CHECK (((key_version >= 0) AND (key_version <= 7)))
);

ALTER TABLE public.fcode_batches ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.fcode_batches_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    MAXVALUE 1048575
    CACHE 1
);

CREATE TABLE public.fcode_bound (
    batch_id integer NOT NULL,
    serial integer NOT NULL,
    member bigint NOT NULL,
    note text,
    CONSTRAINT fcode_bound_member_check CHECK ((member >= 1))
);

CREATE TABLE public.fcode_revoked (
    batch_id integer NOT NULL,
    serial integer NOT NULL,
    at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

CREATE TABLE public.fcode_stop (
    one boolean DEFAULT true NOT NULL,
    at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    actor text NOT NULL,
    reason text NOT NULL,
    CONSTRAINT fcode_stop_one_check CHECK (one)
);

CREATE TABLE public.orders (
    id uuid NOT NULL,
    reservation_id uuid NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    queued_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    settled_at timestamp with time zone,
    amount bigint NOT NULL,
    tries integer DEFAULT 0 NOT NULL,
    state public.order_state DEFAULT 'queued'::public.order_state NOT NULL,
    event text NOT NULL,
    currency text NOT NULL,
    payment_id text COLLATE pg_catalog."C",
    reason text,
    detail jsonb,
    CONSTRAINT orders_amount_check CHECK ((amount >= 0)),
    CONSTRAINT orders_check CHECK (((state = 'queued'::public.order_state) = (settled_at IS NULL))),
    CONSTRAINT orders_check1 CHECK (((event <> 'payment.refund_due'::text) OR (payment_id IS NOT NULL))),
    CONSTRAINT orders_event_check CHECK ((event = ANY (ARRAY['order.confirmed'::text, 'order.returned'::text, 'payment.refund_due'::text])))
);

CREATE TABLE public.payments (
    id text NOT NULL COLLATE pg_catalog."C",
    reservation_id uuid NOT NULL,
    amount bigint NOT NULL,
    received_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    applied boolean NOT NULL,
    currency text NOT NULL,
    CONSTRAINT payments_amount_check CHECK ((amount >= 0)),
    CONSTRAINT payments_currency_check CHECK ((currency ~ '^[A-Z]{3}$'::text)),
    CONSTRAINT payments_id_check CHECK (((length(id) >= 1) AND (length(id) <= 255)))
);

CREATE TABLE public.pgqueuer (
    id bigint NOT NULL,
    priority integer NOT NULL,
    queue_manager_id uuid,
    created timestamp with time zone DEFAULT now() NOT NULL,
    updated timestamp with time zone DEFAULT now() NOT NULL,
    heartbeat timestamp with time zone DEFAULT now() NOT NULL,
    execute_after timestamp with time zone DEFAULT now() NOT NULL,
    status public.pgqueuer_status NOT NULL,
    entrypoint text NOT NULL,
    dedupe_key text,
    payload bytea,
    headers jsonb,
    attempts integer DEFAULT 0 NOT NULL,
    slot bigint
)
WITH (autovacuum_vacuum_scale_factor='0.01', autovacuum_vacuum_threshold='1000', autovacuum_analyze_scale_factor='0.02', autovacuum_analyze_threshold='500', autovacuum_vacuum_cost_limit='10000', autovacuum_vacuum_cost_delay='0', fillfactor='70');

CREATE SEQUENCE public.pgqueuer_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

ALTER SEQUENCE public.pgqueuer_id_seq OWNED BY public.pgqueuer.id;

CREATE TABLE public.pgqueuer_log (
    id bigint NOT NULL,
    created timestamp with time zone DEFAULT now() NOT NULL,
    job_id bigint NOT NULL,
    status public.pgqueuer_status NOT NULL,
    priority integer NOT NULL,
    entrypoint text NOT NULL,
    traceback jsonb,
    aggregated boolean DEFAULT false
)
WITH (autovacuum_vacuum_scale_factor='0.95', autovacuum_vacuum_threshold='1000000', autovacuum_analyze_scale_factor='0.05', autovacuum_analyze_threshold='10000');

ALTER TABLE public.pgqueuer_log ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.pgqueuer_log_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.pgqueuer_schedules (
    id bigint NOT NULL,
    expression text NOT NULL,
    entrypoint text NOT NULL,
    heartbeat timestamp with time zone DEFAULT now() NOT NULL,
    created timestamp with time zone DEFAULT now() NOT NULL,
    updated timestamp with time zone DEFAULT now() NOT NULL,
    next_run timestamp with time zone DEFAULT now() NOT NULL,
    last_run timestamp with time zone,
    status public.pgqueuer_status DEFAULT 'queued'::public.pgqueuer_status
)
WITH (autovacuum_vacuum_scale_factor='0.01', autovacuum_vacuum_threshold='1000', autovacuum_analyze_scale_factor='0.02', autovacuum_analyze_threshold='500', autovacuum_vacuum_cost_limit='10000', autovacuum_vacuum_cost_delay='0', fillfactor='70');

CREATE SEQUENCE public.pgqueuer_schedules_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

ALTER SEQUENCE public.pgqueuer_schedules_id_seq OWNED BY public.pgqueuer_schedules.id;

CREATE TABLE public.pgqueuer_statistics (
    id bigint NOT NULL,
    created timestamp with time zone DEFAULT date_trunc('sec'::text, now()) NOT NULL,
    count bigint NOT NULL,
    priority integer NOT NULL,
    status public.pgqueuer_status NOT NULL,
    entrypoint text NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0.95', autovacuum_vacuum_threshold='1000000', autovacuum_analyze_scale_factor='0.05', autovacuum_analyze_threshold='10000');

CREATE SEQUENCE public.pgqueuer_statistics_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

ALTER SEQUENCE public.pgqueuer_statistics_id_seq OWNED BY public.pgqueuer_statistics.id;

CREATE TABLE public.pictures (
    id text NOT NULL COLLATE pg_catalog."C",
    bytes bytea NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT pictures_id_check CHECK ((id ~ '^[0-9a-f]{20}-[0-9]{1,5}x[0-9]{1,5}\.(png|jpg|webp)$'::text))
);

CREATE TABLE public.rehearsals (
    id uuid NOT NULL,
    drop_id text NOT NULL,
    copy_id text NOT NULL,
    state text DEFAULT 'running'::text NOT NULL,
    started_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    beat_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    ended_at timestamp with time zone,
    actor text NOT NULL,
    asked jsonb NOT NULL,
    told jsonb DEFAULT '{}'::jsonb NOT NULL,
    CONSTRAINT rehearsals_check CHECK (((ended_at IS NULL) = (state = 'running'::text))),
    CONSTRAINT rehearsals_state_check CHECK ((state = ANY (ARRAY['running'::text, 'done'::text, 'stopped'::text, 'failed'::text])))
);

CREATE TABLE public.schema_migrations (
    version character varying NOT NULL
);

CREATE SEQUENCE public.snapshot_numbers
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

CREATE TABLE public.snapshot_points (
    member bigint NOT NULL,
    points bigint NOT NULL,
    line integer NOT NULL,
    snapshot_no integer NOT NULL,
    CONSTRAINT snapshot_points_member_check CHECK ((member >= 1)),
    CONSTRAINT snapshot_points_points_check CHECK ((points >= 0))
)
PARTITION BY LIST (snapshot_no);

CREATE TABLE public.snapshots (
    id text NOT NULL COLLATE pg_catalog."C",
    no integer NOT NULL,
    cutoff timestamp with time zone NOT NULL,
    cutoff_offset_s integer NOT NULL,
    members bigint NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    created_by text NOT NULL,
    CONSTRAINT snapshots_cutoff_offset_s_check CHECK (((cutoff_offset_s >= '-86399'::integer) AND (cutoff_offset_s <= 86399))),
    CONSTRAINT snapshots_id_check CHECK ((id ~ '^[a-z0-9][a-z0-9-]{0,62}$'::text)),
    CONSTRAINT snapshots_members_check CHECK ((members >= 1))
);

ALTER TABLE ONLY public.pgqueuer ALTER COLUMN id SET DEFAULT nextval('public.pgqueuer_id_seq'::regclass);

ALTER TABLE ONLY public.pgqueuer_schedules ALTER COLUMN id SET DEFAULT nextval('public.pgqueuer_schedules_id_seq'::regclass);

ALTER TABLE ONLY public.pgqueuer_statistics ALTER COLUMN id SET DEFAULT nextval('public.pgqueuer_statistics_id_seq'::regclass);

ALTER TABLE ONLY public.allocations
    ADD CONSTRAINT allocations_drop_id_position_key UNIQUE (drop_id, "position");

ALTER TABLE ONLY public.allocations
    ADD CONSTRAINT allocations_pkey PRIMARY KEY (drop_id, id);

ALTER TABLE ONLY public.audit
    ADD CONSTRAINT audit_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.disabled_endpoints
    ADD CONSTRAINT disabled_endpoints_pkey PRIMARY KEY (url);

ALTER TABLE ONLY public.drop_words
    ADD CONSTRAINT drop_words_pkey PRIMARY KEY (drop_id);

ALTER TABLE ONLY public.drops
    ADD CONSTRAINT drops_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.eligible_chunks
    ADD CONSTRAINT eligible_chunks_pkey PRIMARY KEY (snapshot_id, at_least, part);

ALTER TABLE ONLY public.eligible_sets
    ADD CONSTRAINT eligible_sets_pkey PRIMARY KEY (snapshot_id, at_least);

ALTER TABLE ONLY public.fcode_batches
    ADD CONSTRAINT fcode_batches_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.fcode_bound
    ADD CONSTRAINT fcode_bound_pkey PRIMARY KEY (batch_id, serial);

ALTER TABLE ONLY public.fcode_revoked
    ADD CONSTRAINT fcode_revoked_pkey PRIMARY KEY (batch_id, serial);

ALTER TABLE ONLY public.fcode_stop
    ADD CONSTRAINT fcode_stop_pkey PRIMARY KEY (one);

ALTER TABLE ONLY public.orders
    ADD CONSTRAINT orders_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.payments
    ADD CONSTRAINT payments_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.pgqueuer_log
    ADD CONSTRAINT pgqueuer_log_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.pgqueuer
    ADD CONSTRAINT pgqueuer_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.pgqueuer_schedules
    ADD CONSTRAINT pgqueuer_schedules_expression_entrypoint_key UNIQUE (expression, entrypoint);

ALTER TABLE ONLY public.pgqueuer_schedules
    ADD CONSTRAINT pgqueuer_schedules_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.pgqueuer_statistics
    ADD CONSTRAINT pgqueuer_statistics_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.pictures
    ADD CONSTRAINT pictures_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.rehearsals
    ADD CONSTRAINT rehearsals_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.reservations
    ADD CONSTRAINT reservations_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.schema_migrations
    ADD CONSTRAINT schema_migrations_pkey PRIMARY KEY (version);

ALTER TABLE ONLY public.snapshot_points
    ADD CONSTRAINT snapshot_points_pkey PRIMARY KEY (snapshot_no, member);

ALTER TABLE ONLY public.snapshots
    ADD CONSTRAINT snapshots_no_key UNIQUE (no);

ALTER TABLE ONLY public.snapshots
    ADD CONSTRAINT snapshots_pkey PRIMARY KEY (id);

CREATE INDEX fcode_batches_allocation ON public.fcode_batches USING btree (drop_id, allocation_id);

CREATE INDEX fcode_bound_member ON public.fcode_bound USING btree (member);

CREATE INDEX orders_dead ON public.orders USING btree (id) WHERE (state = 'dead'::public.order_state);

CREATE UNIQUE INDEX orders_once ON public.orders USING btree (reservation_id, event) WHERE (event <> 'payment.refund_due'::text);

CREATE INDEX orders_queued ON public.orders USING btree (id) INCLUDE (queued_at, tries) WHERE (state = 'queued'::public.order_state);

CREATE UNIQUE INDEX orders_refund ON public.orders USING btree (payment_id) WHERE (event = 'payment.refund_due'::text);

CREATE UNIQUE INDEX payments_applied ON public.payments USING btree (reservation_id) WHERE applied;

CREATE INDEX pgqueuer_ep_ea_idx ON public.pgqueuer USING btree (entrypoint, execute_after) WHERE (status = 'queued'::public.pgqueuer_status);

CREATE INDEX pgqueuer_ep_prio_id_idx ON public.pgqueuer USING btree (entrypoint, priority DESC, id) WHERE (status = 'queued'::public.pgqueuer_status);

CREATE INDEX pgqueuer_log_created ON public.pgqueuer_log USING btree (created);

CREATE INDEX pgqueuer_log_job_id_status ON public.pgqueuer_log USING btree (job_id, created DESC);

CREATE INDEX pgqueuer_log_not_aggregated ON public.pgqueuer_log USING btree ((1)) WHERE (NOT aggregated);

CREATE INDEX pgqueuer_log_status ON public.pgqueuer_log USING btree (status);

CREATE INDEX pgqueuer_picked_heartbeat_idx ON public.pgqueuer USING btree (heartbeat) WHERE (status = 'picked'::public.pgqueuer_status);

CREATE UNIQUE INDEX pgqueuer_picked_slot_idx ON public.pgqueuer USING btree (entrypoint, slot) WHERE ((status = 'picked'::public.pgqueuer_status) AND (slot IS NOT NULL));

CREATE INDEX pgqueuer_priority_id_id1_idx ON public.pgqueuer USING btree (priority, id DESC) INCLUDE (id) WHERE (status = 'queued'::public.pgqueuer_status);

CREATE INDEX pgqueuer_queue_manager_id_idx ON public.pgqueuer USING btree (queue_manager_id) WHERE (queue_manager_id IS NOT NULL);

CREATE UNIQUE INDEX pgqueuer_statistics_unique_count ON public.pgqueuer_statistics USING btree (priority, date_trunc('sec'::text, timezone('UTC'::text, created)), status, entrypoint);

CREATE UNIQUE INDEX pgqueuer_unique_dedupe_key ON public.pgqueuer USING btree (dedupe_key) WHERE ((status = ANY (ARRAY['queued'::public.pgqueuer_status, 'picked'::public.pgqueuer_status])) AND (dedupe_key IS NOT NULL));

CREATE INDEX pgqueuer_updated_id_id1_idx ON public.pgqueuer USING btree (updated, id DESC) INCLUDE (id) WHERE (status = 'picked'::public.pgqueuer_status);

CREATE INDEX rehearsals_drop ON public.rehearsals USING btree (drop_id, id);

CREATE UNIQUE INDEX rehearsals_one ON public.rehearsals USING btree ((true)) WHERE (state = 'running'::text);

CREATE INDEX reservations_due ON public.reservations USING btree (expires_at) WHERE (state = 'held'::public.reservation_state);

CREATE INDEX reservations_ended ON public.reservations USING btree (member) WHERE (state = ANY (ARRAY['cancelled'::public.reservation_state, 'expired'::public.reservation_state, 'returned'::public.reservation_state]));

CREATE UNIQUE INDEX reservations_fcode ON public.reservations USING btree (fcode) WHERE ((fcode IS NOT NULL) AND (state = ANY (ARRAY['held'::public.reservation_state, 'confirmed'::public.reservation_state, 'returned'::public.reservation_state])));

CREATE UNIQUE INDEX reservations_key ON public.reservations USING btree (drop_id, member, idempotency_key) WHERE ((idempotency_key IS NOT NULL) AND (state <> 'void'::public.reservation_state));

CREATE UNIQUE INDEX reservations_limit ON public.reservations USING btree (drop_id, member, slot) WHERE ((state = ANY (ARRAY['held'::public.reservation_state, 'confirmed'::public.reservation_state])) OR keeps_slot);

CREATE INDEX reservations_outbox ON public.reservations USING btree (drop_id) WHERE (NOT gate_released);

CREATE TRIGGER immutable BEFORE DELETE OR UPDATE OR TRUNCATE ON public.eligible_chunks FOR EACH STATEMENT EXECUTE FUNCTION public.points_are_immutable();

CREATE TRIGGER immutable BEFORE DELETE OR UPDATE OR TRUNCATE ON public.eligible_sets FOR EACH STATEMENT EXECUTE FUNCTION public.points_are_immutable();

CREATE TRIGGER immutable BEFORE INSERT OR DELETE OR UPDATE OR TRUNCATE ON public.snapshot_points FOR EACH STATEMENT EXECUTE FUNCTION public.points_are_immutable();

CREATE TRIGGER immutable BEFORE DELETE OR UPDATE OR TRUNCATE ON public.snapshots FOR EACH STATEMENT EXECUTE FUNCTION public.points_are_immutable();

CREATE TRIGGER tg_pgqueuer_changed AFTER INSERT OR DELETE OR UPDATE OR TRUNCATE ON public.pgqueuer FOR EACH STATEMENT EXECUTE FUNCTION public.fn_pgqueuer_changed();

ALTER TABLE ONLY public.allocations
    ADD CONSTRAINT allocations_drop_id_fkey FOREIGN KEY (drop_id) REFERENCES public.drops(id);

ALTER TABLE ONLY public.drop_words
    ADD CONSTRAINT drop_words_drop_id_fkey FOREIGN KEY (drop_id) REFERENCES public.drops(id);

ALTER TABLE ONLY public.drop_words
    ADD CONSTRAINT drop_words_picture_fkey FOREIGN KEY (picture) REFERENCES public.pictures(id);

ALTER TABLE ONLY public.eligible_chunks
    ADD CONSTRAINT eligible_chunks_snapshot_id_at_least_fkey FOREIGN KEY (snapshot_id, at_least) REFERENCES public.eligible_sets(snapshot_id, at_least);

ALTER TABLE ONLY public.eligible_sets
    ADD CONSTRAINT eligible_sets_snapshot_id_fkey FOREIGN KEY (snapshot_id) REFERENCES public.snapshots(id);

ALTER TABLE ONLY public.fcode_batches
    ADD CONSTRAINT fcode_batches_drop_id_allocation_id_fkey FOREIGN KEY (drop_id, allocation_id) REFERENCES public.allocations(drop_id, id);

ALTER TABLE ONLY public.rehearsals
    ADD CONSTRAINT rehearsals_drop_id_fkey FOREIGN KEY (drop_id) REFERENCES public.drops(id);
