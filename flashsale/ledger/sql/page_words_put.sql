-- What pages say of a drop from now on.
INSERT INTO drop_words (drop_id, texts, picture) VALUES ($1, $2, $3)
ON CONFLICT (drop_id) DO UPDATE SET texts = excluded.texts, picture = excluded.picture
