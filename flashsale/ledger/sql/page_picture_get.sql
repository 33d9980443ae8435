-- A picture.
SELECT bytes FROM pictures WHERE id = $1
