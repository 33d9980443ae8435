-- So many units more, or fewer, in an allocation that this transaction has locked.
UPDATE allocations SET quantity = quantity + $3 WHERE drop_id = $1 AND id = $2
