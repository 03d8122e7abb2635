-- After a failover: what becomes of idempotency keys when the decision log loses decisions (docs/adr/0011), and
-- which node's finished decisions are still to be checked again.

-- +goose Up

-- Which copy of the decision log an epoch began on, beside the server's identity: a dump that is restored on
-- the same server has another table, or another database. Null for an epoch of before.
ALTER TABLE pgpact.gateways ADD COLUMN decision_table text;

-- The life of the decision log (its server, timeline and table) in which every key that a branch record
-- proves is known to be here too. While this is another life than the present one, or nothing, a question
-- about a key asks the nodes as well. At most one row.
CREATE TABLE pgpact.keys_whole (
    life  text NOT NULL,
    since timestamptz NOT NULL DEFAULT pg_catalog.now()
);
CREATE UNIQUE INDEX keys_whole_one_row ON pgpact.keys_whole ((true));

-- Keys that a visible branch record proves to be used by a transaction whose row in transactions cannot bear
-- them, and why. A key that was used again, and one of an aborted transaction, are damage: such rows are
-- named until a person deletes them. The others go away after the retention of keys.
CREATE TABLE pgpact.proven_keys (
    role            text NOT NULL,
    idempotency_key text NOT NULL,
    epoch           bigint NOT NULL,
    sequence        bigint NOT NULL,
    reason          text NOT NULL CHECK (reason IN ('decision not known', 'used again', 'decided aborted')),
    found_at        timestamptz NOT NULL DEFAULT pg_catalog.now(),
    PRIMARY KEY (role, idempotency_key, epoch, sequence)
);

-- The server of a node has changed, and its finished decisions have not all been made unfinished again. The new
-- server is written down first, with this: from then on nothing that was seen on the old one counts.
ALTER TABLE pgpact.nodes ADD COLUMN unchecked boolean NOT NULL DEFAULT false;

-- +goose Down

-- +goose StatementBegin
DO $$
BEGIN
    IF EXISTS (SELECT FROM pgpact.proven_keys) THEN
        RAISE EXCEPTION 'pgpact.proven_keys is not empty and is not dropped'
            USING ERRCODE = 'restrict_violation',
                  HINT = 'Its keys have been used; without it a repetition under them would be done again.';
    END IF;
END
$$;
-- +goose StatementEnd

DROP TABLE pgpact.proven_keys;
DROP TABLE pgpact.keys_whole;
ALTER TABLE pgpact.gateways DROP COLUMN decision_table;
ALTER TABLE pgpact.nodes DROP COLUMN unchecked;
