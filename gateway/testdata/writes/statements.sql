# One statement a line; behind " :: " the parameters (extended protocol), "|" between them. A line that begins with "!" is refused with
# 0A000 when there are several nodes, and not run on the judge then; with "!!" it is not run over one node either. Everything else must do what it does on one Postgres.

# UPDATE and DELETE over several nodes
INSERT INTO accounts (id, balance) VALUES ('alice', 100), ('bob', 100), ('carol', 50), ('dave', 0), ('eve', 7), ('frank', 1000), ('grace', 3), ('heidi', 12)
UPDATE accounts SET balance = balance + CASE id WHEN 'alice' THEN -10 WHEN 'bob' THEN 10 END WHERE id IN ('alice','bob')
UPDATE accounts SET balance = balance + CASE id WHEN 'alice' THEN -1000 WHEN 'bob' THEN 1000 END WHERE id IN ('alice','bob')
UPDATE accounts SET balance = balance + 1 WHERE id = ANY ('{alice,bob,carol}')
UPDATE accounts SET balance = balance + 1 WHERE id = ANY ($1) :: {alice,bob,nobody}
UPDATE accounts SET balance = balance + 1 WHERE id = ANY ($1::text[]) RETURNING id, balance :: {alice,eve,grace}
UPDATE accounts SET balance = balance * 2 WHERE id = 'alice' OR id = 'bob' OR id = 'eve' RETURNING *
UPDATE accounts SET balance = balance + 5 WHERE id >= 'c' AND id < 'f'
UPDATE accounts SET balance = balance + 5 WHERE balance BETWEEN 3 AND 60 RETURNING id
UPDATE accounts SET balance = balance + 1
UPDATE accounts SET balance = balance - 1 WHERE true RETURNING id || ':' || balance AS what
UPDATE accounts SET balance = -1 WHERE id IN ('alice', 'heidi')
UPDATE accounts SET balance = balance / (balance - 12) WHERE id IN ('alice', 'heidi', 'bob')
UPDATE accounts SET nothing = 1
UPDATE accounts SET balance = 'x' WHERE id IN ('alice', 'bob')
UPDATE accounts AS a SET balance = a.balance + 2 WHERE a.id IN ($1, $2) AND a.balance > $3 :: alice|bob|10
UPDATE accounts SET (balance) = ROW(balance + 1) WHERE id IN ('alice', 'bob')
UPDATE accounts SET balance = COALESCE(NULLIF(balance, 0), 10) WHERE id IN ('dave', 'eve')
UPDATE accounts SET balance = balance WHERE id IN ('nobody', 'none')
UPDATE accounts SET balance = balance + 1 WHERE id IN (NULL, 'alice', 'frank')
UPDATE accounts SET balance = 1 WHERE id IS NULL
UPDATE accounts SET balance = 1 WHERE false
!!UPDATE accounts SET id = 'x' WHERE id IN ('alice', 'bob')

# FROM and USING a list
UPDATE accounts SET balance = balance + v.d FROM (VALUES ('alice', -3), ('bob', 3)) AS v(id, d) WHERE accounts.id = v.id
UPDATE accounts SET balance = balance + v.d FROM (VALUES ('alice', 1), ('bob', 2), ('nobody', 3)) AS v(id, d) WHERE accounts.id = v.id RETURNING accounts.id, v.d
UPDATE accounts a SET balance = v.column2 FROM (VALUES ('alice', 20), ('grace', 30)) v WHERE v.column1 = a.id RETURNING a.*
UPDATE accounts SET balance = balance + v.d::int FROM (VALUES ($1, $2), ($3, $4)) AS v(id, d) WHERE accounts.id = v.id :: alice|1|bob|-1
UPDATE accounts SET balance = balance + v.d FROM (VALUES ($1::text, $2::int), ($3, $4)) AS v(id, d) WHERE accounts.id = v.id RETURNING accounts.id :: carol|1|frank|-1
UPDATE accounts SET balance = balance + v.d FROM (VALUES ('alice', 1), ('alice', 1)) AS v(id, d) WHERE accounts.id = v.id
UPDATE accounts SET balance = balance + v.d FROM (VALUES ('alice'::varchar, 1), ('bob', 1)) AS v(id, d) WHERE accounts.id = v.id
UPDATE accounts SET balance = balance + v.d FROM (VALUES (1, 1), (2, 1)) AS v(id, d) WHERE accounts.id = v.id
UPDATE accounts SET balance = balance + v.d FROM (VALUES ('alice', 1), (NULL, 1)) AS v(id, d) WHERE accounts.id = v.id
UPDATE accounts SET balance = balance + v.d FROM (VALUES (upper('alice'), 1), ('bob', 1)) AS v(id, d) WHERE lower(v.id) = accounts.id
UPDATE accounts SET balance = balance + v.d FROM unnest(ARRAY['alice', 'bob'], ARRAY[1, 2]) AS v(id, d) WHERE accounts.id = v.id
UPDATE accounts SET balance = balance + v.d FROM unnest($1::text[], $2::int[]) AS v(id, d) WHERE accounts.id = v.id RETURNING accounts.id :: {alice,bob,eve}|{1,2,3}
UPDATE accounts SET balance = balance + d FROM generate_series(1, 2) AS d WHERE id IN ('alice', 'bob') AND d = 2
WITH v(id, d) AS (VALUES ('alice', 5), ('bob', -5)) UPDATE accounts SET balance = balance + v.d FROM v WHERE accounts.id = v.id RETURNING accounts.id
UPDATE accounts SET balance = (SELECT max(d) FROM (VALUES (11), (12)) v(d)) WHERE id IN ('alice', 'bob')
UPDATE accounts SET balance = balance + (SELECT sum(d) FROM (VALUES ('alice', 1), ('alice', 2), ('bob', 3)) v(id, d) WHERE v.id = accounts.id) WHERE id IN (VALUES ('alice'), ('bob'))
UPDATE accounts SET balance = balance + 1 WHERE id IN (SELECT unnest('{alice,bob}'::text[]))
UPDATE accounts SET balance = 1 FROM (VALUES ('alice', 1)) AS v(id, d) WHERE accounts.id = v.nothing
!!UPDATE accounts SET balance = balance + v.d FROM (SELECT floor(random() * 2)::int AS d) v
!UPDATE accounts SET balance = 0 FROM orders WHERE orders.qty = accounts.balance
!UPDATE accounts SET balance = 0 WHERE id IN (SELECT customer FROM orders)
!!UPDATE accounts SET balance = (SELECT count(*) FROM pg_class)
DELETE FROM accounts USING (VALUES ('grace'), ('heidi')) AS v(id) WHERE accounts.id = v.id RETURNING accounts.id
DELETE FROM accounts WHERE id IN (VALUES ('eve'), ('nobody'))
DELETE FROM accounts WHERE id = ANY ($1) RETURNING * :: {dave,frank}
DELETE FROM accounts WHERE balance > 1000000
DELETE FROM accounts WHERE id LIKE 'c%' OR id LIKE 'x%'
DELETE FROM accounts
DELETE FROM accounts

# INSERT of many rows
INSERT INTO accounts VALUES ('a1', 1), ('a2', 2), ('a3', 3), ('a4', 4), ('a5', 5), ('a6', 6), ('a7', 7), ('a8', 8) RETURNING *
INSERT INTO accounts (balance, id) VALUES (1, 'b1'), (2, 'b2'), (3, 'b3'), (4, 'b4') RETURNING id, balance * 10
INSERT INTO accounts VALUES ('a1', 1), ('new1', 1)
INSERT INTO accounts VALUES ('new1', 1), ('a1', 1), ('a2', 1)
INSERT INTO accounts VALUES ('new1', -1), ('new2', 1), ('new3', 1)
INSERT INTO accounts VALUES ('new1', 1), ('new2', 'x'), ('new3', 'y')
INSERT INTO accounts VALUES ('new1', 1), ('new2', nothing)
INSERT INTO accounts VALUES ('new1', 1), ('new2', 1/0), ('new3', 2)
INSERT INTO accounts VALUES ('new1', 1), ('new2')
INSERT INTO accounts VALUES ('new1', 1), ('new2', 1, 2)
INSERT INTO accounts (id, nothing) VALUES ('new1', 1), ('new2', 1)
INSERT INTO nothing VALUES ('new1', 1), ('new2', 1)
INSERT INTO accounts VALUES ('new1', NULL), ('new2', 1)
INSERT INTO accounts VALUES (NULL, 1), ('new2', 1)
INSERT INTO accounts VALUES ('same', 1), ('same', 2), ('other', 3)
INSERT INTO accounts /* VALUES (1) */ VALUES -- the rows (
INSERT INTO accounts VALUES ('q''(', 1), (E'q\')', 2), ($$q$,$$, 3), (U&'q\00e9', 4), ('q é', 5) RETURNING id
INSERT INTO accounts VALUES ($1, $2), ($3, $4), ($5, $6) :: p1|1|p2|2|p3|3
INSERT INTO accounts VALUES ($1, $4), ($2, $4), ($3, $4 + $5) RETURNING id, balance :: p4|p5|p6|7|1
INSERT INTO accounts VALUES ($1, $2), ($3, $4) RETURNING id, $5::text :: p7|1|p8|2|x
INSERT INTO accounts VALUES ($1, $2), ($3, $4) :: p7|1|p9|2
INSERT INTO accounts VALUES ($1, $2), ($3, $4) :: p9|1|pa|x
INSERT INTO accounts VALUES ($1, $2), ($2, $1) :: pb|1
INSERT INTO accounts VALUES ($1, $2), (NULL, 1) :: pb|1
INSERT INTO accounts VALUES ($1, $2), ($3, $4) :: pb|1||2
INSERT INTO accounts VALUES ('x1', 1 + 1), ('x2', (SELECT 5)), ('x3', 3)
INSERT INTO accounts VALUES ('y1', length('abc')), ('y2', GREATEST(1, 2)), ('y3', CASE WHEN true THEN 4 END) RETURNING *
INSERT INTO accounts VALUES ('z1', generate_series(1, 2)), ('z2', 1), ('z3', 1)
!INSERT INTO accounts (VALUES ('z1', 1), ('z2', 1), ('z3', 1))
!INSERT INTO accounts VALUES ('z1', 1), (lower('Z2'), 1)
INSERT INTO accounts (balance) VALUES (1), (2)
INSERT INTO numbers VALUES (1, 'a'), (2, 'b'), (-3, 'c'), (9223372036854775807, 'd'), (0, NULL) RETURNING n
INSERT INTO numbers VALUES (10, 'toolong'), (11, 'b'), (12, 'c')
INSERT INTO numbers VALUES ('20', 'a'), (' 21', 'b'), ('22'::int4, 'c') RETURNING *
INSERT INTO numbers VALUES ('x', 'a'), (23, 'b')
INSERT INTO numbers VALUES ($1, $2), ($3, $4), ($5, $6) RETURNING n, v :: 30|a|31||32|c
INSERT INTO numbers VALUES (99999999999999999999, 'a'), (24, 'b')
INSERT INTO tokens (token) VALUES ('00000000-0000-0000-0000-000000000001'), ('00000000-0000-0000-0000-000000000002'), ('{00000000-0000-0000-0000-00000000000A}') RETURNING *
INSERT INTO tokens VALUES ('00000000-0000-0000-0000-000000000011', DEFAULT), ('00000000-0000-0000-0000-000000000012', 5), ('00000000-0000-0000-0000-000000000013', DEFAULT) RETURNING *
INSERT INTO tokens (token, mood) VALUES ('00000000-0000-0000-0000-000000000021', 'sad'), ('00000000-0000-0000-0000-000000000022', 'glad') RETURNING mood
INSERT INTO tokens (token, mood) VALUES ($1, $2), ($3, $4), ($5, $6) RETURNING mood, token :: 00000000-0000-0000-0000-000000000031|sad|00000000-0000-0000-0000-000000000032|glad|00000000-0000-0000-0000-000000000033|
INSERT INTO tokens (token, mood) VALUES ($1, $2), ($3, $4) :: 00000000-0000-0000-0000-000000000041|sad|00000000-0000-0000-0000-000000000042|angry
INSERT INTO tokens (token, twice) VALUES ('00000000-0000-0000-0000-000000000051', 1), ('00000000-0000-0000-0000-000000000052', 2)
INSERT INTO orders VALUES ('a1', 1, 'pen', 2), ('a1', 2, 'pen', 1), ('a2', 1, 'ink', 1), ('a3', 1, 'ink', 1, 'quick') RETURNING customer, id, note
INSERT INTO orders (customer, id) VALUES ('a4', 1), ('a5', 1), ('a4', 2), ('a5', 2), ('a6', 1), ('a4', 3) RETURNING *
INSERT INTO stock VALUES ('pen', 10), ('ink', 5), ('pad', 0)

# ON CONFLICT
INSERT INTO accounts VALUES ('a1', 10), ('a2', 20), ('c1', 30), ('c2', 40) ON CONFLICT (id) DO NOTHING
INSERT INTO accounts VALUES ('a1', 10), ('a2', 20), ('c3', 30) ON CONFLICT DO NOTHING
INSERT INTO accounts VALUES ('a1', 10), ('a2', 20), ('c4', 30), ('c5', 50) ON CONFLICT (id) DO UPDATE SET balance = accounts.balance + excluded.balance RETURNING id, balance
INSERT INTO accounts AS t VALUES ($1, $2), ($3, $4) ON CONFLICT (id) DO UPDATE SET balance = t.balance + $5 RETURNING * :: a1|1|c6|2|100
INSERT INTO accounts VALUES ('a1', 10), ('a2', 20) ON CONFLICT ON CONSTRAINT accounts_pkey DO UPDATE SET balance = 0 WHERE accounts.balance > 100
INSERT INTO accounts VALUES ('a1', 10), ('a1', 20), ('a2', 1) ON CONFLICT (id) DO UPDATE SET balance = 0
INSERT INTO accounts VALUES ('a1', 10), ('a2', 20) ON CONFLICT (id) DO UPDATE SET balance = -1
INSERT INTO accounts VALUES ('a1', 10), ('a2', 20) ON CONFLICT (nothing) DO NOTHING
INSERT INTO orders VALUES ('a1', 1, 'pad', 9), ('a2', 1, 'pad', 9), ('a9', 1, 'pad', 9) ON CONFLICT (customer, id) DO UPDATE SET qty = excluded.qty
INSERT INTO orders VALUES ('a1', 1, 'pad', 9), ('a2', 7, 'pad', 9) ON CONFLICT (id, customer) DO NOTHING
INSERT INTO orders VALUES ('a1', 1, 'pad', 9), ('a2', 7, 'pad', 9) ON CONFLICT (customer) DO NOTHING
!INSERT INTO tokens (token, n) VALUES ('00000000-0000-0000-0000-000000000061', 1), ('00000000-0000-0000-0000-000000000062', 2) ON CONFLICT (n) DO NOTHING
!INSERT INTO accounts VALUES ('a1', 1) ON CONFLICT ((lower(id))) DO NOTHING
!!INSERT INTO accounts VALUES ('a1', 1) ON CONFLICT (id) DO UPDATE SET id = 'x'

# INSERT ... SELECT
INSERT INTO archive SELECT * FROM orders
INSERT INTO archive SELECT * FROM orders WHERE customer = 'a1' ON CONFLICT DO NOTHING
INSERT INTO archive SELECT * FROM orders WHERE customer = 'a1'
INSERT INTO archive (customer, id, qty) SELECT customer, id + 100, qty FROM orders WHERE qty > 1 RETURNING customer, id
INSERT INTO archive (id, customer) SELECT o.id + 200, o.customer FROM orders AS o WHERE o.customer IN ('a4', 'a5')
INSERT INTO archive (customer, id) SELECT 'lists', g FROM generate_series(1, 3) g
INSERT INTO archive (customer, id) SELECT $1, g FROM generate_series(1, 3) g :: more
INSERT INTO archive (customer, id, sku) SELECT customer, 300, sku FROM orders WHERE customer = 'a1' AND id = 1
INSERT INTO archive (customer, id, sku) SELECT o.customer, 301, a.id FROM orders o JOIN accounts a ON a.id = o.customer WHERE o.customer = 'a1' AND o.id = 1
INSERT INTO archive (customer, id) SELECT id, 400 FROM accounts WHERE id = 'a1'
INSERT INTO archive (customer, id) SELECT customer, count(*) + 500 FROM orders WHERE customer = 'a4' GROUP BY customer
INSERT INTO archive (customer, id) SELECT customer, nothing FROM orders
INSERT INTO archive SELECT * FROM archive WHERE false
!INSERT INTO archive (customer, id) SELECT sku, 1 FROM orders
!INSERT INTO archive (customer, id) SELECT 'k' || g, 1 FROM generate_series(1, 3) g
!INSERT INTO archive (customer, id) SELECT upper(customer), 1 FROM orders
!INSERT INTO archive (customer, id) SELECT customer, id FROM orders UNION SELECT 'x', 1
!INSERT INTO archive (customer, id) SELECT customer, count(*) FROM orders GROUP BY customer
!INSERT INTO archive (customer, id) SELECT n::text, 1 FROM numbers
!INSERT INTO archive (customer) SELECT customer FROM orders LIMIT 1
UPDATE orders SET qty = qty + 1, note = note || '!' WHERE customer IN ('a1', 'a3') AND id = 1 RETURNING *
UPDATE orders SET qty = DEFAULT WHERE customer > 'a3' RETURNING customer, id, qty
UPDATE orders SET (sku, qty) = ('new', 3) WHERE (customer, id) IN (('a1', 1), ('a2', 1))
UPDATE orders SET qty = qty + v.n FROM (VALUES ('a1', 1, 5), ('a2', 1, 6)) v(c, i, n) WHERE (orders.customer, orders.id) = (v.c, v.i) RETURNING customer, qty
UPDATE numbers SET v = 'n' WHERE n IN (1, 2, -3)
UPDATE numbers SET v = w.v FROM (VALUES (1, 'x'), (2, 'y'), (9223372036854775807, 'z')) w(n, v) WHERE w.n = numbers.n RETURNING numbers.n
UPDATE numbers SET v = 'p' WHERE n = ANY ($1) :: {1,2,20}
UPDATE tokens SET n = n + 1 WHERE token IN ('00000000-0000-0000-0000-000000000001', '{00000000-0000-0000-0000-00000000000a}') RETURNING n, twice
UPDATE tokens SET mood = v.m::mood FROM (VALUES ('00000000-0000-0000-0000-000000000001'::uuid, 'sad'), ('00000000-0000-0000-0000-000000000002', 'glad')) v(t, m) WHERE token = v.t
UPDATE tokens SET n = 1 FROM (VALUES ('00000000-0000-0000-0000-000000000001')) v(t) WHERE tokens.token = v.t
DELETE FROM orders o USING (VALUES ('a4', 2), ('a5', 2)) v(c, i) WHERE o.customer = v.c AND o.id = v.i RETURNING *
DELETE FROM numbers WHERE n <> ALL ('{1,2}')
DELETE FROM tokens WHERE twice > 10 OR mood = 'sad' RETURNING token
INSERT INTO accounts DEFAULT VALUES
