-- Whether this endpoint said that it is gone.
SELECT EXISTS (SELECT 1 FROM disabled_endpoints WHERE url = $1)
