-- What pages say of a drop; nothing when they have no words of their own.
SELECT texts, picture FROM drop_words WHERE drop_id = $1
