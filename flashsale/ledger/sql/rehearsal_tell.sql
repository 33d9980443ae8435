-- What a rehearsal has to tell when it is over, whoever ended it.
UPDATE rehearsals SET told = $2::jsonb WHERE id = $1
