-- The same line of the audit log for several subjects, in their order.
INSERT INTO audit (actor, action, subject, detail)
SELECT $1, $2, s.subject, $4::jsonb FROM unnest($3::text[]) WITH ORDINALITY AS s (subject, n) ORDER BY s.n
