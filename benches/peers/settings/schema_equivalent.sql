-- What a team needs for what one create of Holdfast does: accounts; identifiers of any kind, each unique; a row for
-- each request, so that a retry is harmless; and an outbox from which other systems learn of changes.
--
-- Left out in PostgreSQL's favour, though most would have them: foreign keys, the index from an account to its
-- identifiers, the relay that reads and empties the outbox, the job that deletes old requests, and the change itself in
-- the outbox.
CREATE TABLE accounts (
    id      text PRIMARY KEY,
    version bigint NOT NULL DEFAULT 1,
    payload bytea NOT NULL,
    created timestamptz NOT NULL DEFAULT now(),
    updated timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE identifiers (
    kind       smallint NOT NULL,
    value      text NOT NULL,
    account_id text NOT NULL,
    PRIMARY KEY (kind, value)
);

CREATE TABLE requests (
    request_id uuid PRIMARY KEY,
    account_id text NOT NULL,
    version    bigint NOT NULL,
    born       timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE outbox (
    position   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id text NOT NULL,
    version    bigint NOT NULL,
    kind       smallint NOT NULL
);
