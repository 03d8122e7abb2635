-- What a user who does not exist is asked with at a login must look as real as any other and be the same at every
-- gateway and after every restart, or it would tell that he does not exist (Postgres: mock_authentication_nonce in
-- pg_control). So all gateways derive it from one secret.

-- +goose Up

CREATE TABLE pgpact.login_secret (
    secret bytea NOT NULL CHECK (pg_catalog.length(secret) = 32)
);
CREATE UNIQUE INDEX login_secret_one_row ON pgpact.login_secret ((true));

-- 244 random bits.
INSERT INTO pgpact.login_secret (secret)
SELECT pg_catalog.sha256(pg_catalog.convert_to(pg_catalog.gen_random_uuid()::text || pg_catalog.gen_random_uuid()::text, 'UTF8'));

-- +goose Down
DROP TABLE pgpact.login_secret;
