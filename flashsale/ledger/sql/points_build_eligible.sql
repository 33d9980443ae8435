-- Encodes who has at least $3 points in snapshot $1 (numbered $2) as the gate's hash fields, and stores them in parts.
-- A value is the shorter of: 's' and the last three digits as sorted 2-byte integers; 'b' and a bitmap of them.
-- `lo # 7` turns Postgres's bit order (highest first) into the gate's (lowest first) within each byte.
WITH eligible AS (
    SELECT member / 1000 AS thousand, (member % 1000)::int AS lo
    FROM snapshot_points
    WHERE snapshot_no = $2 AND points >= $3
), thousands AS (
    SELECT
        thousand,
        count(*) AS members,
        max(lo) / 8 + 1 AS bitmap_bytes,
        string_agg(int2send(lo::smallint), ''::bytea ORDER BY lo) AS list,
        bit_or(B'1'::bit(1000) >> (lo # 7)) AS bitmap
    FROM eligible
    GROUP BY thousand
), fields AS (
    SELECT
        members,
        row_number() OVER (ORDER BY thousand) - 1 AS position,
        CASE thousand WHEN 0 THEN ''::bytea ELSE thousand::text::bytea END AS field,
        CASE WHEN 2 * members < bitmap_bytes
            THEN '\x73'::bytea || list
            ELSE '\x62'::bytea || substring(bit_send(bitmap) FROM 5 FOR bitmap_bytes)
        END AS value
    FROM thousands
), parts AS (
    SELECT
        (position / 2000)::int AS part,
        count(*) AS chunks,
        sum(members)::bigint AS members,
        string_agg(
            -- MessagePack: fixstr, str 8 (Redis's cmsgpack knows no bin)
            set_byte('\x00'::bytea, 0, 160 + octet_length(field)) || field
            || set_byte('\xd900'::bytea, 1, octet_length(value)) || value,
            ''::bytea ORDER BY position
        ) AS fields
    FROM fields
    GROUP BY position / 2000
), written AS (
    INSERT INTO eligible_chunks (snapshot_id, at_least, part, fields)
    -- MessagePack: array 16
    SELECT $1, $3, part, '\xdc'::bytea || int2send((2 * chunks)::smallint) || fields FROM parts
)
INSERT INTO eligible_sets (snapshot_id, at_least, members, chunks)
SELECT $1, $3, coalesce(sum(members), 0), coalesce(sum(chunks), 0) FROM parts
RETURNING members, chunks
