-- Commit grants of one drop in one round trip.
SELECT * FROM commit_reservations($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
