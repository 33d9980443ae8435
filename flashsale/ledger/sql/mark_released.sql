-- The gate of this epoch has these units back; returns how many were not marked yet.
SELECT mark_released($1, $2, $3)
