-- The audit log, newest first; $1 only this subject and what lies below it (null: all), $2 before this id.
SELECT id, at, actor, action, subject, detail FROM audit
WHERE ($1::text IS NULL OR subject = $1 OR starts_with(subject, $1 || '/')) AND ($2::bigint IS NULL OR id < $2)
ORDER BY id DESC LIMIT $3
