-- The audit log, newest first; before id $2; each of the others null: all. $1 this subject and what lies below it, $3 this
-- actor, $4 this action or those that begin with it and a dot, $5 and $6 from and until when.
SELECT id, at, actor, action, subject, detail FROM audit
WHERE ($1::text IS NULL OR subject = $1 OR starts_with(subject, $1 || '/')) AND ($2::bigint IS NULL OR id < $2)
    AND ($3::text IS NULL OR actor = $3) AND ($4::text IS NULL OR action = $4 OR starts_with(action, $4 || '.'))
    AND ($5::timestamptz IS NULL OR at >= $5) AND ($6::timestamptz IS NULL OR at < $6)
ORDER BY id DESC LIMIT $7
