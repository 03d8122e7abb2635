# A reference table, currencies, beside the sharded ones.

# Reading it alone.
SELECT * FROM currencies ORDER BY code COLLATE "C"
SELECT name, count(*), sum(rate) FROM currencies GROUP BY name ORDER BY name NULLS FIRST
SELECT a.code, b.code FROM currencies a JOIN currencies b USING (name) ORDER BY 1, 2
WITH c AS (SELECT code FROM currencies) SELECT count(*) FROM c
SELECT code FROM currencies UNION ALL SELECT name FROM currencies
SELECT code, rank() OVER (ORDER BY rate) FROM currencies ORDER BY code COLLATE "C" LIMIT 3
SELECT string_agg(code, ',' ORDER BY code) FROM currencies
SELECT code FROM currencies WHERE code = 'EUR' FOR UPDATE
SELECT code FROM currencies FOR SHARE SKIP LOCKED

# Beside rows of one key.
SELECT c.id, r.code FROM customers c CROSS JOIN currencies r WHERE c.id = 'alice' ORDER BY 2
SELECT c.id, (SELECT count(*) FROM currencies) FROM customers c WHERE c.id = 'alice'
SELECT count(*) FROM currencies r LEFT JOIN customers c ON c.id = 'alice' AND c.city = r.name WHERE c.id = 'alice'
SELECT id FROM customers, currencies WHERE id = 'bob' AND code = 'EUR' FOR UPDATE OF customers
SELECT id FROM customers, currencies r WHERE id = 'bob' AND code = 'EUR' FOR UPDATE

# Beside rows of all nodes.
SELECT p.customer, p.number, r.code FROM purchases p JOIN currencies r ON r.rate > p.quantity / 100.0 ORDER BY 1 COLLATE "C", 2, 3 COLLATE "C"
SELECT count(*), sum(p.amount * r.rate) FROM purchases p JOIN currencies r ON r.code = 'USD'
SELECT r.name, count(*), sum(p.amount) FROM purchases p JOIN currencies r ON length(r.code) = 3 GROUP BY r.name ORDER BY r.name DESC NULLS LAST
SELECT r.code, p.customer FROM purchases p LEFT JOIN currencies r ON r.rate = p.quantity
SELECT r.code, p.customer FROM currencies r RIGHT JOIN purchases p ON r.rate = p.quantity
SELECT r.code, p.customer FROM currencies r LEFT JOIN purchases p ON r.rate = p.quantity
SELECT r.code, p.customer FROM currencies r FULL JOIN purchases p ON r.rate = p.quantity
SELECT c.id, p.number, r.code FROM customers c JOIN purchases p ON p.customer = c.id JOIN currencies r ON r.rate >= p.quantity ORDER BY c.id COLLATE "C", 2, 3 COLLATE "C" LIMIT 20
SELECT id FROM customers WHERE city IN (SELECT name FROM currencies) OR discount IN (SELECT rate FROM currencies) ORDER BY id COLLATE "C"
SELECT id FROM customers WHERE EXISTS (SELECT FROM currencies WHERE rate = discount)
SELECT id, (SELECT max(code) FROM currencies WHERE rate <= discount) FROM customers
SELECT id FROM customers WHERE discount > (SELECT avg(rate) FROM currencies) ORDER BY id COLLATE "C" LIMIT 5
SELECT id FROM customers WHERE city = (SELECT name FROM currencies ORDER BY code LIMIT 1)
SELECT id, (SELECT string_agg(code, ',') FROM currencies) FROM customers
SELECT c.id, r.n FROM customers c JOIN (SELECT name, count(*) AS n FROM currencies GROUP BY name) r ON r.n = length(c.id) ORDER BY 1 COLLATE "C"
SELECT c.id, r.code FROM customers c, LATERAL (SELECT code FROM currencies WHERE rate = c.discount) r
WITH r AS (SELECT * FROM currencies WHERE rate IS NOT NULL) SELECT c.id, r.code FROM customers c JOIN r ON r.rate = c.discount
SELECT id FROM customers UNION SELECT code FROM currencies
SELECT DISTINCT r.name FROM purchases p JOIN currencies r ON r.rate > p.quantity ORDER BY r.name
SELECT count(DISTINCT r.name) FROM purchases p CROSS JOIN currencies r
SELECT c.id FROM customers c, currencies r WHERE r.rate = c.discount FOR UPDATE OF c
SELECT c.id FROM customers c, currencies r WHERE r.rate = c.discount FOR UPDATE
SELECT name FROM customers c JOIN currencies r ON r.rate = c.discount ORDER BY name, c.id COLLATE "C"

# Changing it.
INSERT INTO currencies VALUES ('CHF', 'Franc', 0.95), ('JPY', 'Yen', 169) RETURNING *
INSERT INTO currencies (code) VALUES ('NOK')
INSERT INTO currencies SELECT code || '!', name, rate * 2 FROM currencies WHERE code LIKE 'E%' RETURNING code AS "c""1", rate
UPDATE currencies SET rate = rate + 1 WHERE rate < 1
UPDATE currencies c SET name = upper(c.name) WHERE c.code = 'CHF' RETURNING c.name, c.*
UPDATE currencies SET rate = v.rate FROM (VALUES ('NOK', 11.5), ('JPY', 170)) v(code, rate) WHERE currencies.code = v.code
UPDATE currencies AS a SET rate = b.rate FROM currencies b WHERE b.code = 'EUR' AND a.code = 'XTS' RETURNING a.code, b.code
DELETE FROM currencies WHERE code LIKE '%!' RETURNING code
DELETE FROM currencies USING (VALUES ('NOK')) v(c) WHERE code = c
UPDATE currencies SET rate = 1 WHERE code = 'none' RETURNING *
SELECT * FROM currencies ORDER BY code COLLATE "C"
INSERT INTO currencies VALUES ('EUR', random())
INSERT INTO currencies VALUES ('now', now()::text)
INSERT INTO currencies VALUES ('now', CURRENT_DATE::text)
UPDATE currencies SET rate = 1 / 0.0 WHERE code = 'EUR'
INSERT INTO currencies SELECT id FROM customers
UPDATE currencies SET rate = 5 WHERE code IN (SELECT city FROM customers)
DELETE FROM currencies WHERE code = (SELECT code FROM currencies ORDER BY code LIMIT 1)
WITH d AS (DELETE FROM currencies RETURNING code) SELECT * FROM d
WITH d AS (DELETE FROM currencies WHERE false RETURNING code) INSERT INTO items SELECT 1, code FROM d
INSERT INTO currencies VALUES (1, 2), (3)
INSERT INTO currencies VALUES (nosuch(1))
INSERT INTO currencies (nosuch) VALUES (1)
UPDATE currencies SET rate = 'x'
INSERT INTO currencies DEFAULT VALUES
DELETE FROM currencies WHERE code IS NULL
SELECT count(*), sum(rate) FROM currencies

# Changing others by it.
UPDATE customers SET discount = discount + (SELECT rate FROM currencies WHERE code = 'EUR') WHERE discount < 1
UPDATE customers SET note = 'eur' FROM currencies r WHERE r.name = 'Euro' AND customers.discount = r.rate
DELETE FROM purchases USING currencies r WHERE r.code = 'GBP' AND purchases.quantity > 5 RETURNING customer, number
UPDATE purchases SET amount = amount * rate FROM currencies WHERE code = 'USD' AND customer = 'alice'
INSERT INTO items SELECT 7001, code, 5 FROM currencies WHERE code = 'EUR' RETURNING *
INSERT INTO items VALUES (7002, (SELECT max(code) FROM currencies), 1), (7003, 'x', 2), (7004, 'y', 3)
INSERT INTO items SELECT length(code), code, 5 FROM currencies
UPDATE customers SET city = (SELECT name FROM currencies ORDER BY rate LIMIT 1)
SELECT id, discount, note FROM customers ORDER BY id COLLATE "C"
SELECT * FROM purchases ORDER BY customer COLLATE "C", number
SELECT * FROM items ORDER BY id
COPY (SELECT code, rate FROM currencies WHERE code = 'EUR') TO STDOUT
