-- Take back what was confirmed.
SELECT outcome, bumped, (reservation).* FROM return_reservation($1, $2, $3, $4, $5::jsonb)
