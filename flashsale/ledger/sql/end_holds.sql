-- Cancel these holds of a drop, or expire those of them that are due; returns what ended.
SELECT * FROM end_holds($1, $2, $3)
