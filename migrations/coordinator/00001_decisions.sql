-- The decision log and what belongs to it (DESIGN section 4). Everything is in schema pgpact, which exists
-- before the first migration because goose keeps its own version table there.

-- +goose Up

-- The cluster's name, made once and never again: it is part of every gid, so a cluster that changed its
-- name would no longer recognize its own prepared transactions (invariant I7).
CREATE TABLE pgpact.cluster (
    id text PRIMARY KEY CHECK (id ~ '^[a-z0-9]{1,32}$')
);
CREATE UNIQUE INDEX cluster_one_row ON pgpact.cluster ((true));

-- The last 16 digits of a random UUID: 62 random bits, short because a gid has 199 bytes for everything.
INSERT INTO pgpact.cluster (id)
SELECT pg_catalog.right(pg_catalog.replace(pg_catalog.gen_random_uuid()::text, '-', ''), 16);

-- +goose StatementBegin
CREATE FUNCTION pgpact.cluster_is_fixed() RETURNS trigger
    LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'pgpact.% cannot be changed', TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation',
              HINT = 'It is part of the name of every prepared transaction of this cluster.';
END
$$;
-- +goose StatementEnd

CREATE TRIGGER cluster_is_fixed BEFORE UPDATE OR DELETE OR TRUNCATE ON pgpact.cluster
    FOR EACH STATEMENT EXECUTE FUNCTION pgpact.cluster_is_fixed();

-- One row for each life of each gateway process. The epoch is a random number made by the process, never a
-- sequence: a restored dump hands a sequence's values out twice (FACTS section 7).
CREATE TABLE pgpact.gateways (
    epoch      bigint PRIMARY KEY CHECK (epoch > 0),
    name       text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    -- The horizon: the highest sequence of this epoch that was purged. Nothing at or below it is ever
    -- settled again (invariant I6).
    forgotten  bigint NOT NULL DEFAULT 0 CHECK (forgotten >= 0),
    -- On which decision database the epoch began. If it is another one now (failover, restore), decisions
    -- may be missing from it, and presuming an abort needs the word of every node.
    decision_system_identifier text,
    decision_timeline          integer
);

-- The decisions. The primary key is what makes a transaction have one decision only (invariant I2).
--
-- No foreign key to gateways: the settling statement reads the gateway's row itself, and the key would lock
-- that row once more for every decision.
--
-- The row is inserted at the commit point, updated once (finished_at) a moment later in batches, and deleted
-- after the retention. What was weighed for the update:
--   * Recovery asks every second for what is not finished, among up to a day's decisions; that needs the
--     partial index below. A column in an index, or in the condition of one, makes an update of it no HOT
--     update (src/backend/access/heap/README.HOT), so finishing writes one more entry into the primary key. It is
--     off the client's path.
--   * No index on finished_at: purge walks the primary key upwards from the horizon (invariant I6 lets it
--     forget in no other order), so it would only cost.
--   * Because there is no HOT update to make room for, pages are filled wholly.
CREATE TABLE pgpact.transactions (
    epoch           bigint NOT NULL,
    sequence        bigint NOT NULL CHECK (sequence > 0),
    outcome         text NOT NULL CHECK (outcome IN ('committed', 'aborted')),
    -- Names of the nodes with a writing branch: those that changed rows, then those that only locked some. Empty if
    -- whoever wrote an abort did not know them.
    participants    text[] NOT NULL,
    role            text NOT NULL,
    idempotency_key text CHECK (idempotency_key IS NULL OR outcome = 'committed'),
    decided_at      timestamptz NOT NULL DEFAULT pg_catalog.now(),
    finished_at     timestamptz,
    -- Set when a person forced the outcome of a branch against or without the decision.
    heuristic       text,
    PRIMARY KEY (epoch, sequence)
) WITH (
    -- A purged row leaves its space for a new one, so vacuum has to keep pace with the decisions: by default
    -- it would wait for a fifth of a day's rows to die.
    autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_limit = 2000,
    autovacuum_analyze_scale_factor = 0.02
);

CREATE INDEX transactions_unfinished ON pgpact.transactions (epoch, sequence) WHERE finished_at IS NULL;

-- Nobody may commit twice under one key. An index with a condition rather than a constraint: most decisions
-- have no key and then cost nothing here. It bears the name a constraint would have, for it shows in errors.
CREATE UNIQUE INDEX transactions_role_idempotency_key_key ON pgpact.transactions (role, idempotency_key)
    WHERE idempotency_key IS NOT NULL;

-- What each node's server said of itself when it was last seen. A changed identifier or timeline means a
-- failover or a restore, after which finished transactions are checked again.
CREATE TABLE pgpact.nodes (
    name              text PRIMARY KEY CHECK (name ~ '^[a-z0-9_-]{1,63}$'),
    system_identifier text,
    timeline          integer,
    seen_at           timestamptz
);

-- Placement: which node has which hash slice of the keys. The number of rows is the bucket count.
CREATE TABLE pgpact.buckets (
    bucket integer PRIMARY KEY CHECK (bucket >= 0),
    node   text NOT NULL REFERENCES pgpact.nodes (name)
);

-- Empty for ever, and without columns so that nobody is tempted. Deciders DELETE from it in the statement
-- that decides (ROW EXCLUSIVE, taken at parse time), readers of several nodes hold it in SHARE mode: while
-- they do, no decision is made (DESIGN section 7b).
CREATE TABLE pgpact.gate ();

-- +goose Down

-- Taking the decision log away while anything may still depend on it loses money, so it is refused while it
-- remembers anything. The lock first: what is not there now must not come between the look and the drop.
LOCK TABLE pgpact.transactions, pgpact.gateways IN ACCESS EXCLUSIVE MODE;

-- +goose StatementBegin
DO $$
BEGIN
    IF EXISTS (SELECT FROM pgpact.transactions) OR EXISTS (SELECT FROM pgpact.gateways) THEN
        RAISE EXCEPTION 'the decision log is not empty and is not dropped'
            USING ERRCODE = 'restrict_violation',
                  HINT = 'Decisions in it may be the only ones; a cluster that is no longer needed is removed with DROP DATABASE.';
    END IF;
END
$$;
-- +goose StatementEnd

DROP TABLE pgpact.gate;
DROP TABLE pgpact.buckets;
DROP TABLE pgpact.nodes;
DROP TABLE pgpact.transactions;
DROP TABLE pgpact.gateways;
DROP TABLE pgpact.cluster;
DROP FUNCTION pgpact.cluster_is_fixed();
