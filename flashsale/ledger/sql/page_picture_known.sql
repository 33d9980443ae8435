-- Whether there is such a picture.
SELECT EXISTS (SELECT 1 FROM pictures WHERE id = $1)
