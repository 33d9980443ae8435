-- Rehearsals of drop $1, newest first; $2 only this one, $3 before this id (null: all).
SELECT * FROM rehearsals
WHERE drop_id = $1 AND ($2::uuid IS NULL OR id = $2) AND ($3::uuid IS NULL OR id < $3) ORDER BY id DESC LIMIT $4
