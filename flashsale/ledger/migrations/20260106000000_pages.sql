-- migrate:up

-- Pictures of what is sold. The id is made of the content, so a picture never changes under its name.
CREATE TABLE pictures (
    id text COLLATE "C" PRIMARY KEY CHECK (id ~ '^[0-9a-f]{20}-[0-9]{1,5}x[0-9]{1,5}\.(png|jpg|webp)$'),
    bytes bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- What pages say of a drop: words in each language, and a picture. Apart from the drop, whose row every commit locks.
CREATE TABLE drop_words (
    drop_id text COLLATE "C" PRIMARY KEY REFERENCES drops (id),
    texts jsonb NOT NULL,
    picture text COLLATE "C" REFERENCES pictures (id)
);

-- migrate:down

DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only: restore a backup instead'; END $$;
