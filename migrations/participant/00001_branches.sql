-- What the protocol needs on every node (DESIGN section 4), in schema pgpact.

-- +goose Up

-- Who this node is. Its row is written after the migrations, by the program, which knows it; from then on
-- every new connection compares it with what the gateway believes. bucket_count is here because it is a
-- constant of the cluster that SQL on the node must know too.
CREATE TABLE pgpact.node (
    cluster_id   text NOT NULL CHECK (cluster_id ~ '^[a-z0-9]{1,32}$'),
    name         text NOT NULL CHECK (name ~ '^[a-z0-9_-]{1,63}$'),
    bucket_count integer NOT NULL CHECK (bucket_count BETWEEN 1 AND 65536)
);
CREATE UNIQUE INDEX node_one_row ON pgpact.node ((true));

-- +goose StatementBegin
CREATE FUNCTION pgpact.node_is_fixed() RETURNS trigger
    LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'pgpact.% cannot be changed', TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation',
              HINT = 'It is part of the name of every prepared transaction on this node.';
END
$$;
-- +goose StatementEnd

CREATE TRIGGER node_is_fixed BEFORE UPDATE OR DELETE OR TRUNCATE ON pgpact.node
    FOR EACH STATEMENT EXECUTE FUNCTION pgpact.node_is_fixed();

-- The branch records: a writing branch inserts its row inside its own transaction, so the row is visible
-- exactly when that branch is committed here (invariant I8). Rows are inserted and, after the retention,
-- deleted; vacuum has to keep pace with that.
CREATE TABLE pgpact.branches (
    epoch        bigint NOT NULL,
    sequence     bigint NOT NULL,
    participants text[] NOT NULL, -- those that changed rows, then those that only locked some
    PRIMARY KEY (epoch, sequence)
) WITH (
    autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_limit = 2000,
    autovacuum_analyze_scale_factor = 0.02
);

-- The bucket of a key: the first two bytes, big endian, of SHA-256 of its canonical text, modulo the count
-- (DESIGN section 6). convert_to is only STABLE because it may depend on the database's encoding, which
-- never changes and is UTF8 here; so IMMUTABLE is true.
--
-- pgpact.bucket(text), for everybody's use, is made together with the row in pgpact.node and has this
-- cluster's count written into it. A default for the second argument here would answer wrongly in a cluster
-- with another count, and a look into pgpact.node would make the function no longer IMMUTABLE.
-- +goose StatementBegin
CREATE FUNCTION pgpact.bucket(key text, buckets integer) RETURNS integer
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT (pg_catalog.get_byte(h.digest, 0) * 256 + pg_catalog.get_byte(h.digest, 1)) % buckets
    FROM (SELECT pg_catalog.sha256(pg_catalog.convert_to(key, 'UTF8')) AS digest) h
$$;
-- +goose StatementEnd

-- +goose Down

-- Branch records are the proof of what committed here; they are not dropped while there are any, nor is the
-- table while a prepared branch still holds its lock on it (then the LOCK below runs into lock_timeout).
LOCK TABLE pgpact.branches IN ACCESS EXCLUSIVE MODE;

-- +goose StatementBegin
DO $$
BEGIN
    IF EXISTS (SELECT FROM pgpact.branches) THEN
        RAISE EXCEPTION 'pgpact.branches is not empty and is not dropped'
            USING ERRCODE = 'restrict_violation',
                  HINT = 'Its rows prove what committed on this node; they go away when the gateways have forgotten the transactions.';
    END IF;
END
$$;
-- +goose StatementEnd

DROP FUNCTION IF EXISTS pgpact.bucket(text);
DROP FUNCTION pgpact.bucket(text, integer);
DROP TABLE pgpact.branches;
DROP TABLE pgpact.node;
DROP FUNCTION pgpact.node_is_fixed();
