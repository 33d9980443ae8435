-- One line of the audit log, in the transaction of the act itself.
INSERT INTO audit (actor, action, subject, detail) VALUES ($1, $2, $3, $4::jsonb)
