# Schema changes: a line as in statements.sql. "~" before a line: the tag, the rows and the error of Postgres, but the tables are not compared
# by the test's list. Lines that begin with "!!" are refused by the gateway with 0A000.
CREATE TABLE wallets (id text PRIMARY KEY, amount bigint NOT NULL DEFAULT 0, note text)
CREATE TABLE IF NOT EXISTS wallets (id text PRIMARY KEY)
CREATE TABLE wallets (id text PRIMARY KEY)
INSERT INTO wallets VALUES ('a', 1), ('b', 2), ('c', 3), ('d', 4), ('e', 5)
ALTER TABLE wallets ADD COLUMN currency text NOT NULL DEFAULT 'EUR'
SELECT * FROM wallets WHERE id = 'a'
UPDATE wallets SET amount = amount + 1, currency = 'USD' WHERE id IN ('a', 'b', 'c') RETURNING *
ALTER TABLE wallets ADD CONSTRAINT positive CHECK (amount >= 0)
UPDATE wallets SET amount = amount - 3
ALTER TABLE wallets ADD CHECK (amount > 3)
CREATE INDEX wallets_amount ON wallets (amount)
CREATE INDEX wallets_amount ON wallets (amount)
CREATE INDEX IF NOT EXISTS wallets_amount ON wallets (amount)
CREATE UNIQUE INDEX ON wallets (id, amount)
!CREATE UNIQUE INDEX ON wallets (amount)
!ALTER TABLE wallets ADD UNIQUE (amount)
DROP INDEX wallets_amount
DROP INDEX wallets_amount
ALTER TABLE wallets RENAME COLUMN note TO remark
ALTER TABLE wallets ALTER COLUMN remark TYPE varchar(20)
ALTER TABLE wallets ALTER COLUMN remark SET DEFAULT 'none'
INSERT INTO wallets (id) VALUES ('f'), ('g'), ('h') RETURNING *
ALTER TABLE wallets DROP COLUMN remark
ALTER TABLE wallets DROP COLUMN remark
ALTER TABLE wallets DROP COLUMN IF EXISTS remark
!!ALTER TABLE wallets DROP COLUMN id
!!ALTER TABLE wallets RENAME COLUMN id TO key
!!ALTER TABLE wallets ALTER COLUMN id TYPE uuid USING gen_random_uuid()
!!ALTER TABLE wallets DROP CONSTRAINT wallets_pkey
CREATE TABLE entries (wallet text REFERENCES wallets, n int DEFAULT 1, amount bigint, PRIMARY KEY (wallet, n))
!CREATE TABLE transfers (id uuid PRIMARY KEY, source text REFERENCES wallets)
!CREATE TABLE mails (id uuid PRIMARY KEY, address text UNIQUE)
CREATE TABLE mails (id uuid, address text, PRIMARY KEY (id), UNIQUE (id, address))
!!CREATE TABLE nokey (id text)
!!CREATE TABLE nokey (id numeric PRIMARY KEY)
!!CREATE TABLE nokey AS SELECT 1 AS id
!!CREATE TABLE parts (id text PRIMARY KEY) PARTITION BY HASH (id)
!!SELECT 1 AS id INTO nokey
!!CREATE TEMP TABLE nokey (id text PRIMARY KEY)
!!CREATE MATERIALIZED VIEW mv AS SELECT * FROM wallets
!!CREATE DATABASE other
!!CREATE ROLE other
!!CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'
!!ALTER SYSTEM SET work_mem = 1
CREATE TABLE copies (LIKE wallets INCLUDING ALL)
INSERT INTO copies SELECT * FROM wallets
SELECT count(*) FROM copies WHERE id = 'a'
TRUNCATE copies
TRUNCATE wallets
TRUNCATE nothing
TRUNCATE wallets CASCADE
INSERT INTO wallets VALUES ('a', 100), ('b', 2), ('c', 3)
INSERT INTO entries (wallet, amount) VALUES ('a', 1), ('b', 2)
INSERT INTO entries (wallet, amount) VALUES ('a', 1), ('nobody', 2)
DELETE FROM wallets WHERE id IN ('a', 'c')
CREATE TYPE color AS ENUM ('red', 'green')
ALTER TYPE color ADD VALUE 'blue'
CREATE TABLE paints (id int PRIMARY KEY, color color)
INSERT INTO paints VALUES (1, 'red'), (2, 'blue'), (3, 'green') RETURNING *
DROP TYPE color
CREATE SCHEMA shop
CREATE TABLE shop.items (sku text PRIMARY KEY, price numeric)
INSERT INTO shop.items VALUES ('x', 1), ('y', 2.5), ('z', 3)
UPDATE shop.items SET price = price * 2 WHERE sku IN ('x', 'y')
ALTER TABLE shop.items RENAME TO goods
SELECT * FROM shop.goods WHERE sku = 'x'
CREATE VIEW shop.cheap AS SELECT * FROM shop.goods WHERE price < 3
DROP TABLE shop.goods
DROP SCHEMA shop CASCADE
COMMENT ON TABLE wallets IS 'what people have'
COMMENT ON COLUMN wallets.amount IS 'in cents'
GRANT SELECT ON wallets TO public
REVOKE SELECT ON wallets FROM public
GRANT SELECT ON wallets TO nobody_at_all
CREATE SEQUENCE seq
DROP SEQUENCE seq
BEGIN; CREATE TABLE made (id int PRIMARY KEY, v text); INSERT INTO made VALUES (1, 'a'), (2, 'b'), (3, 'c'); UPDATE made SET v = v || '!' WHERE id IN (1, 3) RETURNING *; COMMIT
BEGIN; ALTER TABLE made ADD w int DEFAULT 5; SELECT * FROM made WHERE id = 1; ROLLBACK
SELECT * FROM made WHERE id = 1
BEGIN; CREATE TABLE gone (id int PRIMARY KEY); ROLLBACK; SELECT * FROM gone
CREATE TABLE several (id int PRIMARY KEY); INSERT INTO several VALUES (1), (2), (3); INSERT INTO several VALUES (1)
BEGIN; SAVEPOINT s; CREATE TABLE within (id int PRIMARY KEY); INSERT INTO within VALUES (1), (2); ROLLBACK TO s; CREATE TABLE within (id text PRIMARY KEY); INSERT INTO within VALUES ('x'), ('y'); COMMIT
SELECT id FROM within WHERE id = 'x'
DROP TABLE within, made
DROP TABLE within
DROP TABLE IF EXISTS within, made
DROP TABLE paints, mails, copies
DROP TABLE wallets
DROP TABLE wallets CASCADE
DROP TYPE color
DROP TABLE entries
