# CTEs, subqueries in FROM and IN (SELECT ...) whose sharded tables are tied by
# the shard key, over several nodes.

# Passing rows on.
WITH x AS (SELECT * FROM customers) SELECT * FROM x ORDER BY id
WITH x AS (SELECT * FROM customers) SELECT count(*), sum(discount) FROM x
WITH x AS (SELECT * FROM customers WHERE vip), y AS (SELECT id, upper(city) AS city FROM x) SELECT city, count(*) FROM y GROUP BY city ORDER BY city
WITH x (k, c) AS (SELECT id, city FROM customers) SELECT k, c FROM x WHERE k > 'b' ORDER BY k DESC LIMIT 5 OFFSET 1
SELECT count(*) FROM (SELECT 1 FROM customers) x
SELECT x.id FROM (SELECT id FROM customers WHERE city IS NOT NULL) x ORDER BY x.id LIMIT 4
SELECT x.k, x.c FROM (SELECT id, city FROM customers) x (k, c) ORDER BY 1
SELECT * FROM (SELECT * FROM (SELECT customer, number FROM purchases) a WHERE number > 1) b ORDER BY 1, 2
SELECT count(*), min(n), max(s) FROM (SELECT customer, count(*) AS n, sum(amount) AS s FROM purchases GROUP BY customer) x
SELECT n, count(*) FROM (SELECT customer, count(*) AS n FROM purchases GROUP BY customer) x GROUP BY n ORDER BY n
SELECT avg(s) FROM (SELECT sum(amount) AS s FROM purchases GROUP BY customer) x
SELECT * FROM (SELECT customer, sum(amount) AS s FROM purchases GROUP BY 1 HAVING count(*) > 1) x ORDER BY s DESC NULLS LAST, customer
SELECT k, string_agg(n::text, ',' ORDER BY n) FROM (SELECT customer AS k, number AS n FROM purchases) x GROUP BY k ORDER BY k
SELECT state, sum(n) FROM (SELECT customer, state, count(*) AS n FROM purchases GROUP BY customer, state) x GROUP BY state ORDER BY state
SELECT count(*) FROM (SELECT DISTINCT customer, state FROM purchases) x
SELECT count(*), sum(number) FROM (SELECT DISTINCT ON (customer) customer, number FROM purchases ORDER BY customer, number DESC) x
SELECT id, city COLLATE "C" AS c FROM (SELECT * FROM customers) x ORDER BY c NULLS FIRST, id
SELECT DISTINCT city FROM (SELECT * FROM customers) x ORDER BY city
SELECT note, count(*) FROM (SELECT note FROM customers) x GROUP BY note ORDER BY note
SELECT u, count(*) FROM (SELECT upper(city) AS u FROM customers) x GROUP BY u ORDER BY u
SELECT DISTINCT ON (k) k, n FROM (SELECT customer AS k, number AS n FROM purchases) x ORDER BY k, n
SELECT DISTINCT ON (customer) upper(state) AS customer, number FROM purchases ORDER BY customer, number
SELECT count(*) FROM (SELECT DISTINCT ON (customer) upper(state) AS customer, number FROM purchases ORDER BY customer, number) x
SELECT count(*) FROM (SELECT id FROM customers WHERE id IN ('alice', 'bob')) x
WITH x AS (SELECT id FROM customers WHERE id IN ('alice', 'bob')) SELECT id FROM x ORDER BY id
WITH x AS (SELECT id FROM customers WHERE id = 'alice') SELECT count(*) FROM x
WITH x AS (SELECT id FROM customers WHERE id IN ('alice', NULL)) SELECT count(*) FROM x
WITH x AS (SELECT id FROM customers WHERE false) SELECT count(*), max(id) FROM x
WITH x AS (SELECT id FROM customers WHERE id = 'alice'), y AS (SELECT id FROM customers WHERE id = 'bob') SELECT count(*) FROM x JOIN y USING (id)

# Joins of what they return.
WITH p AS (SELECT customer, sum(amount) AS s FROM purchases GROUP BY customer) SELECT c.id, p.s FROM customers c JOIN p ON p.customer = c.id ORDER BY c.id
WITH p AS (SELECT customer, sum(amount) AS s FROM purchases GROUP BY customer) SELECT c.id, p.s FROM customers c LEFT JOIN p ON p.customer = c.id ORDER BY c.id
WITH p AS (SELECT customer AS k, count(*) AS n FROM purchases GROUP BY customer) SELECT c.city, sum(p.n), count(*) FROM customers c, p WHERE c.id = p.k GROUP BY c.city ORDER BY c.city
WITH p AS (SELECT customer AS k, number FROM purchases), c AS (SELECT id AS k, city FROM customers) SELECT * FROM p JOIN c USING (k) ORDER BY k, number
WITH p AS (SELECT customer AS k, number FROM purchases), c AS (SELECT id AS k, city FROM customers) SELECT * FROM c LEFT JOIN p USING (k) ORDER BY k, number
WITH p AS (SELECT customer AS k, number FROM purchases), c AS (SELECT id AS k, city FROM customers) SELECT k, number, city FROM p FULL JOIN c USING (k) ORDER BY k, number
WITH p AS (SELECT customer AS k, number FROM purchases), c AS (SELECT id AS k FROM customers) SELECT k, count(*) FROM p RIGHT JOIN c USING (k) GROUP BY k ORDER BY k
WITH p AS (SELECT customer AS k, number FROM purchases), c AS (SELECT id AS k FROM customers) SELECT k, count(*) FROM p FULL JOIN c USING (k) GROUP BY k ORDER BY k
WITH x AS (SELECT * FROM customers) SELECT a.id, b.city FROM x a JOIN x b ON a.id = b.id ORDER BY a.id
WITH x AS (SELECT * FROM customers) SELECT a.id, b.city FROM x a JOIN x b ON a.city = b.city ORDER BY a.id
WITH x AS MATERIALIZED (SELECT * FROM customers) SELECT x.id, p.number FROM x JOIN purchases p ON p.customer = x.id WHERE x.id > 'b' ORDER BY 1, 2
SELECT x.id FROM customers c JOIN (SELECT customer AS id, sum(amount) FROM purchases GROUP BY customer) x ON x.id = c.id ORDER BY x.id
SELECT x.id, y.n FROM (SELECT id FROM customers) x JOIN (SELECT customer, max(number) AS n FROM purchases GROUP BY customer) y ON y.customer = x.id ORDER BY 1
SELECT x.id, y.n FROM (SELECT id FROM customers) x LEFT JOIN (SELECT customer, max(number) AS n FROM purchases GROUP BY customer) y ON y.customer = x.id ORDER BY 2 NULLS FIRST, 1
SELECT y.customer, count(*) FROM (SELECT id FROM customers) x LEFT JOIN (SELECT customer, max(number) AS n FROM purchases GROUP BY customer) y ON y.customer = x.id GROUP BY y.customer ORDER BY 1
SELECT z.id, count(*) FROM (SELECT c.id, p.number FROM customers c LEFT JOIN purchases p ON p.customer = c.id) z GROUP BY z.id ORDER BY z.id
SELECT z.customer, count(*) FROM (SELECT p.customer, c.vip FROM customers c LEFT JOIN purchases p ON p.customer = c.id) z GROUP BY z.customer ORDER BY z.customer
SELECT c.id, z.n FROM customers c JOIN (SELECT p.customer, count(*) AS n FROM customers c LEFT JOIN purchases p ON p.customer = c.id GROUP BY c.id, p.customer) z ON z.customer = c.id ORDER BY c.id
SELECT count(*) FROM (SELECT c.id FROM customers c FULL JOIN purchases p ON p.customer = c.id) z
SELECT count(*), count(c.id), count(p.number) FROM customers c FULL JOIN purchases p ON p.customer = c.id
SELECT f.id, i.price FROM facts f JOIN (SELECT id, price FROM items WHERE price > 0) i ON i.id = f.id ORDER BY f.id
SELECT count(*) FROM facts f JOIN (SELECT id::bigint AS id FROM items) i ON i.id = f.id
SELECT count(*) FROM customers c JOIN (SELECT upper(id) AS id FROM customers) u ON u.id = c.id
SELECT count(*) FROM customers c JOIN (SELECT city AS id FROM customers) u ON u.id = c.id
SELECT count(*) FROM customers c JOIN (SELECT id AS city, city AS id FROM customers) u ON u.id = c.id
SELECT count(*) FROM customers c JOIN (SELECT id AS city, city AS id FROM customers) u ON u.city = c.id
SELECT c.id, r.n FROM customers c JOIN (SELECT name, count(*) AS n FROM currencies GROUP BY name) r ON r.n = length(c.id) ORDER BY 1 COLLATE "C", 2
WITH r AS (SELECT * FROM currencies WHERE rate IS NOT NULL) SELECT c.id, r.code FROM customers c JOIN r ON r.rate = c.discount ORDER BY 1, 2
WITH r AS (SELECT * FROM currencies WHERE rate IS NOT NULL) SELECT r.code, c.id FROM r LEFT JOIN customers c ON r.rate = c.discount ORDER BY 1, 2
WITH x AS (SELECT 1 AS one) SELECT id, one FROM customers, x ORDER BY id
WITH x AS (SELECT n FROM generate_series(1, 3) n) SELECT c.id, x.n FROM customers c JOIN x ON x.n = length(c.id) ORDER BY 1
SELECT v.name, count(*) FROM (VALUES ('alice'), ('bob'), ('nobody')) v(name) JOIN (SELECT customer FROM purchases) p ON p.customer = v.name GROUP BY v.name ORDER BY 1
SELECT x.id, l.n FROM (SELECT id FROM customers) x CROSS JOIN LATERAL (SELECT count(*) AS n FROM purchases p WHERE p.customer = x.id) l ORDER BY 1
SELECT x.id, l.number FROM (SELECT id FROM customers) x LEFT JOIN LATERAL (SELECT number FROM purchases p WHERE p.customer = x.id ORDER BY number DESC LIMIT 2) l ON true ORDER BY 1, 2
WITH p AS (SELECT * FROM purchases) SELECT c.id, l.number FROM customers c, LATERAL (SELECT number FROM p WHERE p.customer = c.id ORDER BY number LIMIT 1) l ORDER BY 1
SELECT a.id FROM customers a LEFT JOIN (customers b CROSS JOIN LATERAL (SELECT p.customer FROM purchases p WHERE p.customer = a.id) l) ON l.customer = a.id ORDER BY 1

# Windows.
SELECT * FROM (SELECT customer, number, row_number() OVER (PARTITION BY customer ORDER BY number DESC) AS r FROM purchases) x WHERE r <= 2 ORDER BY 1, 2
WITH r AS (SELECT customer, amount, number, rank() OVER w AS r FROM purchases WINDOW w AS (PARTITION BY customer ORDER BY amount DESC NULLS LAST, number)) SELECT c.id, c.city, r.amount FROM r JOIN customers c ON c.id = r.customer WHERE r.r = 1 ORDER BY c.id
WITH r AS (SELECT customer, number, sum(amount) OVER (PARTITION BY customer) AS s FROM purchases) SELECT count(*), sum(s) FROM r
SELECT x.k, x.n, lag(x.n) OVER (PARTITION BY x.k ORDER BY x.n) FROM (SELECT customer AS k, number AS n FROM purchases) x ORDER BY 1, 2
SELECT * FROM (SELECT customer, number, row_number() OVER (PARTITION BY state ORDER BY customer, number) AS r FROM purchases) x WHERE r <= 2 ORDER BY 1, 2
SELECT * FROM (SELECT id, rank() OVER (ORDER BY id) AS r FROM customers) x WHERE r < 4 ORDER BY id
SELECT x.n, count(*) OVER (PARTITION BY x.n) FROM (SELECT customer AS k, number AS n FROM purchases) x ORDER BY 1, 2
SELECT x.k, count(*) OVER (PARTITION BY x.k) FROM (SELECT p.customer AS k FROM customers c LEFT JOIN purchases p ON p.customer = c.id) x ORDER BY 1, 2

# Set operations inside.
SELECT k, count(*) FROM (SELECT id AS k FROM customers UNION ALL SELECT customer FROM purchases) u GROUP BY k ORDER BY k
SELECT count(*) FROM (SELECT id FROM customers UNION SELECT customer FROM purchases) u
SELECT k FROM (SELECT id AS k FROM customers EXCEPT SELECT customer FROM purchases) u ORDER BY k
SELECT k FROM (SELECT id AS k FROM customers INTERSECT SELECT customer FROM purchases) u ORDER BY k
SELECT k FROM (SELECT customer AS k, number FROM purchases INTERSECT ALL SELECT customer, number FROM purchases WHERE number > 1) u ORDER BY k
WITH u AS (SELECT id AS k, 'c' AS what FROM customers UNION ALL SELECT customer, 'p' FROM purchases) SELECT c.city, u.what, count(*) FROM u JOIN customers c ON c.id = u.k GROUP BY c.city, u.what ORDER BY 1, 2
SELECT count(*) FROM (SELECT id FROM customers UNION ALL SELECT owner FROM items) u
SELECT count(*) FROM (SELECT city FROM customers UNION SELECT owner FROM items) u
SELECT count(*) FROM (SELECT id FROM customers UNION ALL SELECT 'x') u
SELECT count(*) FROM (SELECT id FROM customers UNION ALL SELECT code FROM currencies) u
SELECT count(*) FROM (SELECT id, city FROM customers UNION SELECT city, id FROM customers) u
SELECT count(*) FROM (SELECT id FROM items UNION SELECT id FROM facts) u
SELECT k, count(*) FROM (SELECT id AS k FROM customers UNION ALL SELECT owner FROM items) u GROUP BY k ORDER BY k
SELECT count(*) FROM (SELECT p.customer FROM customers c LEFT JOIN purchases p ON p.customer = c.id UNION SELECT p.customer FROM customers c LEFT JOIN purchases p ON p.customer = c.id) u
SELECT count(*) FROM (SELECT id FROM customers UNION ALL (SELECT customer FROM purchases ORDER BY 1 LIMIT 3)) u

# Subqueries in expressions.
SELECT id FROM customers WHERE id IN (SELECT customer FROM purchases) ORDER BY id
SELECT id FROM customers WHERE id NOT IN (SELECT customer FROM purchases) ORDER BY id
SELECT id FROM customers WHERE id = ANY (SELECT customer FROM purchases WHERE amount > 0) ORDER BY id
SELECT count(*) FROM customers WHERE id IN (SELECT customer FROM purchases GROUP BY customer HAVING sum(amount) > 10)
SELECT id, id IN (SELECT customer FROM purchases) FROM customers ORDER BY id
SELECT id FROM customers WHERE id IN (SELECT city FROM customers) ORDER BY id
SELECT id FROM customers WHERE city IN (SELECT id FROM customers) ORDER BY id
SELECT id FROM customers WHERE id <> ALL (SELECT customer FROM purchases) ORDER BY id
SELECT id FROM customers WHERE id IN (SELECT customer FROM purchases ORDER BY amount LIMIT 3) ORDER BY id
SELECT id FROM customers WHERE id NOT IN (SELECT p.customer FROM customers c LEFT JOIN purchases p ON p.customer = c.id) ORDER BY id
SELECT id FROM items WHERE id IN (SELECT id FROM facts) ORDER BY id
SELECT id FROM items WHERE id IN (SELECT i4 FROM facts) ORDER BY id
WITH p AS (SELECT customer FROM purchases WHERE state = 'paid') SELECT id FROM customers WHERE id IN (SELECT customer FROM p) ORDER BY id
WITH p AS (SELECT customer FROM purchases WHERE state = 'paid') SELECT id FROM customers c WHERE NOT EXISTS (SELECT FROM p WHERE p.customer = c.id) ORDER BY id
WITH p AS (SELECT customer, amount FROM purchases) SELECT id, (SELECT sum(p.amount) FROM p WHERE p.customer = c.id) FROM customers c ORDER BY id
WITH p AS (SELECT customer, amount FROM purchases) SELECT id, (SELECT sum(amount) FROM p) FROM customers c ORDER BY id
WITH purchases AS (SELECT customer AS k FROM purchases) SELECT (SELECT count(number) FROM purchases WHERE k = p.customer) FROM public.purchases p ORDER BY 1
SELECT x.id FROM (SELECT id FROM customers c WHERE EXISTS (SELECT FROM purchases p WHERE p.customer = c.id)) x ORDER BY 1
SELECT x.id FROM (SELECT id FROM customers c WHERE EXISTS (SELECT FROM purchases p WHERE p.state = c.city)) x ORDER BY 1
SELECT x.id FROM (SELECT id FROM customers c WHERE EXISTS (SELECT FROM purchases p WHERE p.customer = c.id AND EXISTS (SELECT FROM purchases q WHERE q.customer = p.customer AND q.number > p.number))) x ORDER BY 1
SELECT c.id FROM customers c WHERE EXISTS (SELECT FROM (SELECT customer, count(*) AS n FROM purchases GROUP BY customer) x WHERE x.customer = c.id AND x.n > 1) ORDER BY 1
SELECT c.id FROM customers c WHERE c.id IN (SELECT d.id FROM customers d WHERE EXISTS (SELECT FROM purchases p WHERE p.customer = c.id)) ORDER BY 1
SELECT c.id FROM customers c WHERE c.id IN (SELECT d.id FROM customers d WHERE EXISTS (SELECT FROM purchases p WHERE p.customer = d.id)) ORDER BY 1
SELECT (SELECT count(*) FROM customers)
SELECT 1 WHERE EXISTS (SELECT FROM customers)

# Of everything something.
WITH purchases AS (SELECT customer AS k FROM purchases) SELECT count(*) FROM purchases JOIN public.purchases p ON p.customer = purchases.k
WITH x AS (SELECT customer, number AS k FROM purchases) SELECT DISTINCT ON (k) customer AS k, x.k AS n FROM x ORDER BY k, n
SELECT x.city, (SELECT count(*) FROM purchases p WHERE p.customer = x.id) AS n FROM (SELECT id, city FROM customers) x ORDER BY n, city
SELECT city, sum(n) FROM (SELECT c.city, (SELECT count(*) FROM purchases p WHERE p.customer = c.id) AS n FROM customers c) x GROUP BY city ORDER BY city
SELECT city, array_agg(n ORDER BY n) FROM (SELECT c.id, c.city, p.number AS n FROM customers c JOIN purchases p ON p.customer = c.id) x GROUP BY id, city ORDER BY id
SELECT id FROM customers WHERE (SELECT count(*) FROM (SELECT * FROM purchases) p WHERE p.customer = customers.id) > 2 ORDER BY id
SELECT c.id, u FROM customers c, unnest(ARRAY(SELECT number FROM purchases p WHERE p.customer = c.id)) u ORDER BY 1, 2
WITH x AS (SELECT id, note FROM customers) SELECT note FROM x ORDER BY note DESC NULLS LAST, id LIMIT 4
SELECT max(note), min(city) FROM (SELECT note, city FROM customers) x
SELECT a.id, b.id FROM customers a FULL JOIN (SELECT id FROM customers WHERE vip) b ON a.id = b.id AND a.discount > 0 ORDER BY 1, 2
SELECT x.k FROM (SELECT customer k FROM purchases UNION SELECT id FROM customers) x WHERE x.k IN ('alice', 'bob', 'nobody') ORDER BY 1
WITH a AS (SELECT id, city FROM customers), b AS (SELECT a.id, p.number FROM a JOIN purchases p ON p.customer = a.id), c AS (SELECT id, max(number) AS m FROM b GROUP BY id) SELECT a.city, c.m FROM a LEFT JOIN c USING (id) ORDER BY a.id
SELECT customer, number FROM (SELECT *, max(number) OVER (PARTITION BY customer) AS m FROM purchases) x WHERE number = m ORDER BY customer
SELECT owner, sum(price) FROM (SELECT DISTINCT ON (id) * FROM items ORDER BY id) i GROUP BY owner ORDER BY owner
SELECT count(*) FROM items i JOIN (SELECT id, i4 FROM facts) f USING (id)
SELECT count(*) FROM (SELECT id FROM facts WHERE id = ANY ('{0,1,-1}')) f
SELECT id, 10 / (price - price) FROM (SELECT * FROM items) i
SELECT nosuch FROM (SELECT * FROM items) i
SELECT id FROM (SELECT id, id FROM items) i
SELECT * FROM (SELECT id FROM items) i, (SELECT id FROM facts) f WHERE id = id

# Refused: rows of several nodes meet.
WITH x AS (SELECT * FROM customers) SELECT 1
WITH x AS (SELECT * FROM customers LIMIT 3) SELECT count(*) FROM x
SELECT count(*) FROM (SELECT id FROM customers ORDER BY id LIMIT 3) x
SELECT count(*) FROM (SELECT id FROM customers OFFSET 3) x
SELECT * FROM (SELECT id FROM customers ORDER BY id) x
SELECT count(*) FROM (SELECT id FROM customers ORDER BY id) x
SELECT count(*) FROM (SELECT DISTINCT city FROM customers) x
SELECT count(*) FROM (SELECT DISTINCT ON (state) state, customer FROM purchases ORDER BY state, customer) x
SELECT * FROM (SELECT count(*) AS n FROM customers) x
SELECT * FROM (SELECT city, count(*) AS n FROM customers GROUP BY city) x ORDER BY city
SELECT c.id, x.n FROM customers c, (SELECT count(*) AS n FROM purchases) x ORDER BY c.id
SELECT * FROM (SELECT customer, count(*) AS n FROM purchases GROUP BY ROLLUP (customer)) x ORDER BY 1
SELECT * FROM (SELECT customer, count(*) AS n FROM purchases GROUP BY GROUPING SETS ((customer), ())) x ORDER BY 1
SELECT * FROM (SELECT upper(customer) AS customer, count(*) FROM purchases GROUP BY 1) x ORDER BY 1
WITH RECURSIVE x (id, n) AS (SELECT id, 1 FROM customers UNION ALL SELECT id, n + 1 FROM x WHERE n < 3) SELECT count(*) FROM x
WITH x AS (SELECT id, random() AS r FROM customers) SELECT count(*) FROM x WHERE r < 2
WITH x AS (SELECT id FROM customers FOR UPDATE) SELECT count(*) FROM x
WITH x AS (SELECT * FROM customers), y AS (SELECT * FROM items) SELECT count(*) FROM x, y
WITH x AS (SELECT * FROM customers), y AS (SELECT * FROM items) SELECT count(*) FROM x JOIN y ON y.owner = x.id
WITH c AS (SELECT * FROM customers), p AS (SELECT * FROM purchases) SELECT count(*) FROM c LEFT JOIN p ON p.customer = c.id OR p.number = 1
WITH c AS (SELECT * FROM customers), p AS (SELECT * FROM purchases) SELECT count(*) FROM c LEFT JOIN p ON p.customer <> c.id
SELECT count(*) FROM customers c LEFT JOIN (SELECT * FROM purchases) p ON true WHERE p.customer = c.id
SELECT count(*) FROM (SELECT * FROM customers) c NATURAL JOIN (SELECT customer AS id FROM purchases) p

# Other ways to ask.
COPY (WITH x AS (SELECT id FROM customers WHERE vip) SELECT id FROM x) TO STDOUT
COPY (SELECT n FROM (SELECT customer, count(*) AS n FROM purchases GROUP BY customer) x) TO STDOUT
DECLARE c CURSOR FOR WITH x AS (SELECT id, city FROM customers) SELECT x.id, p.number FROM x JOIN purchases p ON p.customer = x.id ORDER BY 1, 2; MOVE 2 IN c; FETCH 5 FROM c
DECLARE c CURSOR FOR WITH x AS (SELECT customer, count(*) AS n FROM purchases GROUP BY customer) SELECT n, count(*) FROM x GROUP BY n ORDER BY n; FETCH 2 FROM c
PREPARE tied (text, int) AS WITH x AS (SELECT customer, number FROM purchases WHERE customer > $1) SELECT customer, max(number) FROM x GROUP BY customer ORDER BY customer LIMIT $2; EXECUTE tied ('b', 3)
EXECUTE tied ('c', 2)
DEALLOCATE tied
INSERT INTO items (id, owner, price) WITH x AS (SELECT id FROM items) SELECT x.id + 1000000, 'x', 1 FROM x
INSERT INTO items (id, owner, price) SELECT 800001, k, 1 FROM (SELECT id AS k FROM customers) x
WITH x AS (SELECT id FROM customers) DELETE FROM purchases USING x WHERE purchases.customer = x.id
UPDATE items SET price = 1 WHERE id IN (SELECT id FROM facts)
