# Joins, subqueries, CTEs and window functions over several nodes.
SELECT c.id, p.number FROM customers c JOIN purchases p ON p.customer = c.id
SELECT c.id, p.number, p.amount FROM customers c JOIN purchases p ON p.customer = c.id ORDER BY c.id, p.number
SELECT c.id, p.number FROM customers c, purchases p WHERE c.id = p.customer ORDER BY 1, 2 LIMIT 5
SELECT c.id, p.number FROM customers c LEFT JOIN purchases p ON p.customer = c.id ORDER BY c.id, p.number
SELECT c.id, p.number FROM purchases p RIGHT JOIN customers c ON p.customer = c.id ORDER BY c.id, p.number NULLS FIRST
SELECT c.id, p.number FROM customers c FULL JOIN purchases p ON p.customer = c.id ORDER BY c.id, p.number
SELECT * FROM customers c JOIN purchases p ON p.customer = c.id ORDER BY id, number
SELECT p.*, c.city FROM customers c JOIN purchases p ON p.customer = c.id ORDER BY placed, id, number
SELECT a.id, b.id FROM customers a JOIN customers b ON a.id = b.id ORDER BY a.id
SELECT a.id, b.id FROM customers a JOIN customers b ON a.city = b.city ORDER BY a.id, b.id
SELECT a.number, b.number FROM purchases a JOIN purchases b USING (customer) WHERE customer < 'b' ORDER BY 1, 2
SELECT count(*) FROM customers NATURAL JOIN items
SELECT count(*), sum(p.amount) FROM customers c JOIN purchases p ON p.customer = c.id
SELECT c.city, sum(p.amount), count(DISTINCT c.id) FROM customers c JOIN purchases p ON p.customer = c.id GROUP BY c.city ORDER BY c.city
SELECT c.id, sum(p.amount) FROM customers c LEFT JOIN purchases p ON p.customer = c.id GROUP BY c.id ORDER BY c.id
SELECT p.customer, count(*) FROM customers c LEFT JOIN purchases p ON p.customer = c.id GROUP BY p.customer ORDER BY p.customer
SELECT c.city, count(p.number) FROM customers c LEFT JOIN purchases p ON p.customer = c.id AND p.amount > 0 GROUP BY c.city ORDER BY 2 DESC, 1
SELECT DISTINCT c.city, p.state FROM customers c JOIN purchases p ON p.customer = c.id ORDER BY 1, 2
SELECT DISTINCT p.customer FROM customers c LEFT JOIN purchases p ON p.customer = c.id ORDER BY 1
SELECT c.id FROM customers c JOIN purchases p ON p.customer = c.id WHERE c.id IN ('alice', 'bob', 'carol') ORDER BY c.id, p.number
SELECT c.id FROM customers c JOIN purchases p ON p.customer = c.id WHERE p.customer = 'alice' ORDER BY p.number
SELECT f.id, i.price FROM facts f JOIN items i ON f.id = i.id ORDER BY f.id
SELECT f.id, i.price FROM facts f LEFT JOIN items i ON i.id = f.id WHERE f.id BETWEEN -5 AND 5 ORDER BY f.id
SELECT count(*) FROM facts f JOIN items i ON f.i4 = i.id
SELECT i.id FROM items i JOIN customers c ON i.owner = c.id ORDER BY i.id
SELECT count(*) FROM customers, items
SELECT count(*) FROM customers c JOIN purchases p ON p.customer = c.id JOIN customers d ON d.id = p.customer
SELECT count(*) FROM customers c JOIN purchases p ON p.customer = c.id JOIN items i ON i.owner = c.id
SELECT c.id FROM customers c JOIN purchases p ON p.customer = c.id AND p.number = 1 LEFT JOIN purchases q ON q.customer = p.customer AND q.number = 2 WHERE q.number IS NULL ORDER BY c.id
SELECT c.id FROM (customers c LEFT JOIN purchases p ON p.customer = c.id) JOIN purchases q ON q.customer = p.customer AND q.number = p.number ORDER BY c.id, q.number
SELECT c.id FROM customers c JOIN purchases p ON p.customer = upper(c.id) ORDER BY 1
SELECT c.id FROM customers c JOIN purchases p ON p.customer = c.id FOR UPDATE OF c
SELECT c.id FROM customers c WHERE EXISTS (SELECT 1 FROM purchases p WHERE p.customer = c.id) ORDER BY c.id
SELECT c.id FROM customers c WHERE NOT EXISTS (SELECT 1 FROM purchases p WHERE p.customer = c.id) ORDER BY c.id
SELECT c.id FROM customers c WHERE EXISTS (SELECT 1 FROM purchases p WHERE p.customer = c.id AND p.amount > 5) ORDER BY c.id DESC LIMIT 3
SELECT c.id, (SELECT count(*) FROM purchases p WHERE p.customer = c.id) AS n FROM customers c ORDER BY n DESC, c.id
SELECT c.id, (SELECT sum(p.amount) FROM purchases p WHERE p.customer = c.id) FROM customers c ORDER BY c.id
SELECT c.id, (SELECT max(amount) FROM purchases WHERE customer = c.id) FROM customers c ORDER BY c.id
SELECT c.id, (SELECT p.state FROM purchases p WHERE p.customer = c.id ORDER BY p.number LIMIT 1) FROM customers c ORDER BY 1
SELECT (SELECT sum(c.discount)) FROM customers c
SELECT (SELECT count(*)) FROM customers c
SELECT count(*) FROM customers c WHERE (SELECT count(*) FROM purchases p WHERE p.customer = c.id) > 2
SELECT id FROM customers WHERE id IN (SELECT customer FROM purchases) ORDER BY id
SELECT id FROM customers WHERE id IN (SELECT customer FROM purchases p WHERE p.customer = customers.id) ORDER BY id
SELECT id FROM customers WHERE id IN (SELECT 'alice') ORDER BY id
SELECT id, (SELECT 1) FROM customers ORDER BY id
SELECT id FROM customers WHERE discount > (SELECT avg(discount) FROM customers) ORDER BY id
SELECT c.id, l.number FROM customers c CROSS JOIN LATERAL (SELECT number FROM purchases p WHERE p.customer = c.id ORDER BY number DESC LIMIT 2) l ORDER BY 1, 2
SELECT c.id, l.n FROM customers c LEFT JOIN LATERAL (SELECT count(*) AS n FROM purchases p WHERE p.customer = c.id) l ON true ORDER BY 1
SELECT id, n FROM customers, generate_series(1, 2) n ORDER BY id, n
SELECT count(*) FROM customers, generate_series(1, 3)
SELECT n, count(c.id) FROM generate_series(1, 3) n LEFT JOIN customers c ON length(c.id) = n GROUP BY n ORDER BY n
SELECT id FROM customers c JOIN (VALUES ('alice'), ('bob')) v(name) ON v.name = c.id ORDER BY id
SELECT upper(name) AS name, count(*) FROM customers c, (VALUES ('a'), ('A')) v(name) GROUP BY name ORDER BY 1
SELECT v.name FROM customers c, (VALUES ('a'), ('B')) v(name) WHERE c.id = 'alice' OR c.id = 'bob' ORDER BY v.name, c.id
SELECT count(*) FROM (SELECT c.id FROM customers c JOIN purchases p ON p.customer = c.id) x
SELECT * FROM (SELECT id FROM customers ORDER BY id LIMIT 3) x
SELECT x.id FROM customers c JOIN (SELECT customer AS id, sum(amount) FROM purchases GROUP BY customer) x ON x.id = c.id
WITH x AS (SELECT * FROM customers) SELECT * FROM x
WITH x AS (SELECT 1 AS one) SELECT id, one FROM customers, x ORDER BY id
SELECT id FROM customers UNION ALL SELECT owner FROM items
SELECT id FROM customers EXCEPT SELECT customer FROM purchases
SELECT count(*) FROM customers c JOIN pg_class k ON k.relname = c.id
SELECT id, rank() OVER (ORDER BY discount) FROM customers
SELECT c.id, count(*) OVER (PARTITION BY c.id) FROM customers c JOIN purchases p ON p.customer = c.id ORDER BY 1, p.number
SELECT p.customer, lag(p.amount) OVER w FROM purchases p WINDOW w AS (PARTITION BY p.customer ORDER BY p.number) ORDER BY p.customer, p.number
SELECT p.customer, lag(p.amount) OVER w FROM purchases p WINDOW w AS (ORDER BY p.customer, p.number) ORDER BY p.customer, p.number
SELECT c.id, p.customer, count(*) OVER (PARTITION BY p.customer) FROM customers c LEFT JOIN purchases p ON p.customer = c.id ORDER BY c.id, p.number
SELECT random() < 2 FROM customers c JOIN purchases p ON p.customer = c.id
SELECT id FROM customers WHERE (SELECT random()) < 2
