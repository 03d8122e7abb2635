-- +goose Up

-- What each gateway's transactions wait for on the nodes, published only while some of them have waited longer
-- than deadlock_timeout: a lock table shows server processes, and which of them on several nodes belong to one
-- transaction only its gateway knows. It is gone after a crash, and nothing is lost with it: it is said again a
-- moment later.
CREATE UNLOGGED TABLE pgpact.lock_waits (
  epoch        bigint PRIMARY KEY CHECK (epoch > 0),
  published_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  waits        text NOT NULL
);
COMMENT ON TABLE pgpact.lock_waits IS 'Which server processes belong to one transaction, of gateways whose transactions wait for locks';

-- +goose Down
DROP TABLE pgpact.lock_waits;
