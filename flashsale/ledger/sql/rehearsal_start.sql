-- A rehearsal begins; nothing while another runs.
INSERT INTO rehearsals (id, drop_id, copy_id, actor, asked) VALUES ($1, $2, $3, $4, $5::jsonb)
ON CONFLICT DO NOTHING RETURNING id
