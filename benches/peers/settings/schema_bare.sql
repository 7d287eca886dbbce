-- The least that keeps accounts with two unique identifiers: one table.
CREATE TABLE accounts (
    id       text PRIMARY KEY,
    email    text NOT NULL UNIQUE,
    username text NOT NULL UNIQUE,
    version  bigint NOT NULL DEFAULT 1,
    payload  bytea NOT NULL
);
