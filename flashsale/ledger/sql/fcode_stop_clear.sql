-- The F-codes of all drops are honoured again, but for those of drops that have a switch of their own off.
DELETE FROM fcode_stop
