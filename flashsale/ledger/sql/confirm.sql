-- Confirm holds; one row each, in their order.
SELECT ordinal, outcome, queued, due, due_currency, (reservation).* FROM confirm_reservations($1, $2, $3, $4, $5, $6)
ORDER BY ordinal
