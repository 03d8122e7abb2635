-- Branch records carry their transaction's idempotency key. A decision that the decision database loses (an
-- asynchronous failover, an older backup) is proven again by a branch record, and its key with it: else a
-- client's repetition under the same key would be done a second time.

-- +goose Up

-- Both null for a transaction without a key, as are the rows of before. No default and no constraint, so
-- nothing is rewritten or read.
ALTER TABLE pgpact.branches ADD COLUMN role text, ADD COLUMN idempotency_key text;

-- Not unique: a second transaction under the key would wait at PREPARE for the first, on each node for
-- another one. The decision log's own index settles that race. Records without a key are not in it and so
-- cost nothing. The order is total, for whoever reads all of it in pages.
CREATE INDEX branches_key ON pgpact.branches (role, idempotency_key, epoch, sequence) WHERE idempotency_key IS NOT NULL;

-- +goose Down

-- A key that is the only one left of a lost decision would be gone.
LOCK TABLE pgpact.branches IN ACCESS EXCLUSIVE MODE;

-- +goose StatementBegin
DO $$
BEGIN
    IF EXISTS (SELECT FROM pgpact.branches WHERE idempotency_key IS NOT NULL) THEN
        RAISE EXCEPTION 'pgpact.branches holds idempotency keys, which are not dropped'
            USING ERRCODE = 'restrict_violation',
                  HINT = 'They prove under which keys transactions have committed here; they go away when the gateways have forgotten the transactions.';
    END IF;
END
$$;
-- +goose StatementEnd

DROP INDEX pgpact.branches_key;
ALTER TABLE pgpact.branches DROP COLUMN role, DROP COLUMN idempotency_key;
