-- Whether this is a primary with the schema that this version needs.
SELECT NOT pg_is_in_recovery() AS primary,
    (SELECT max(version) FROM schema_migrations) AS schema_version
