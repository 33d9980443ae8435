-- One reservation.
SELECT * FROM reservations WHERE id = $1 AND state <> 'void'
