-- Outcomes that a person has forced (pgpact resolve --force) are named by check and by pgpact transactions for ever: among millions of
-- decisions they must be found without reading all of them.

-- +goose Up
CREATE INDEX transactions_heuristic ON pgpact.transactions (epoch, sequence) WHERE heuristic IS NOT NULL;

-- +goose Down
DROP INDEX pgpact.transactions_heuristic;
