-- migrate:up

-- Over how many stripes the gate spreads a drop. It never changes: `home_stripe` and `unit_stripe` of its reservations
-- are numbers of these.
ALTER TABLE drops ADD COLUMN stripes integer NOT NULL DEFAULT 1 CHECK (stripes BETWEEN 1 AND 64);

-- migrate:down

DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only: restore a backup instead'; END $$;
