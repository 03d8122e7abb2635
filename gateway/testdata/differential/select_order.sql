# ORDER BY, LIMIT, OFFSET over several nodes.
SELECT * FROM customers ORDER BY id
SELECT id FROM customers ORDER BY id DESC
SELECT id, city FROM customers ORDER BY city, id
SELECT id, city FROM customers ORDER BY city DESC NULLS LAST, id DESC
SELECT id FROM customers ORDER BY city COLLATE "C" NULLS FIRST, id COLLATE "POSIX"
SELECT id FROM customers ORDER BY note, id
SELECT id, discount FROM customers ORDER BY discount, id
SELECT id, discount FROM customers ORDER BY discount DESC, id
SELECT id, discount FROM customers ORDER BY 2 NULLS FIRST, 1 DESC
SELECT id, born FROM customers ORDER BY born, id
SELECT id, born FROM customers ORDER BY born DESC NULLS LAST, id
SELECT id FROM customers ORDER BY vip, id
SELECT id FROM customers ORDER BY vip DESC, id
SELECT id FROM customers WHERE id > 'b' ORDER BY id LIMIT 5
SELECT id FROM customers ORDER BY id LIMIT 5 OFFSET 3
SELECT id FROM customers ORDER BY id OFFSET 30
SELECT id FROM customers ORDER BY id LIMIT 0
SELECT id FROM customers ORDER BY id LIMIT ALL
SELECT id FROM customers ORDER BY id LIMIT NULL OFFSET NULL
SELECT id FROM customers ORDER BY id OFFSET 1000
SELECT id FROM customers ORDER BY id LIMIT 1000000000000
SELECT id FROM customers ORDER BY id LIMIT 9223372036854775807 OFFSET 9223372036854775807
SELECT id FROM customers ORDER BY id LIMIT -1
SELECT id FROM customers ORDER BY id OFFSET -1
SELECT id FROM customers ORDER BY id LIMIT 99999999999999999999
SELECT id FROM customers ORDER BY id LIMIT '3'
SELECT id FROM customers ORDER BY id LIMIT 'x'
SELECT id FROM customers ORDER BY id LIMIT 1 + 1
SELECT id FROM customers ORDER BY id FETCH FIRST 3 ROWS ONLY
SELECT id FROM customers ORDER BY id FETCH FIRST ROW ONLY
SELECT id FROM customers ORDER BY id OFFSET 2 ROWS FETCH NEXT 3 ROWS ONLY
~ SELECT vip FROM customers ORDER BY vip FETCH FIRST 3 ROWS WITH TIES
~ SELECT vip, note FROM customers ORDER BY vip DESC, note FETCH FIRST 7 ROWS WITH TIES
~ SELECT city FROM customers ORDER BY city OFFSET 4 FETCH FIRST 2 ROWS WITH TIES
SELECT count(*) FROM (SELECT 1) x
SELECT upper(id) AS u FROM customers ORDER BY u, id
SELECT upper(id) FROM customers ORDER BY upper(id), id
SELECT id FROM customers ORDER BY lower(id), id
SELECT id FROM customers ORDER BY length(id), id
SELECT id FROM customers ORDER BY length(id) DESC, id DESC LIMIT 7
SELECT customers.id FROM customers ORDER BY customers.id
SELECT c.* FROM customers c ORDER BY c.id
SELECT c.id AS city, city AS id FROM customers c ORDER BY city
SELECT c.id AS a, c.id AS b FROM customers c ORDER BY a, b
SELECT id AS a, city AS a FROM customers ORDER BY a
SELECT *, id FROM customers ORDER BY id
SELECT *, discount FROM customers ORDER BY 1
SELECT *, discount FROM customers ORDER BY 4, 1
SELECT id FROM customers ORDER BY 2
SELECT id FROM customers ORDER BY nosuch
SELECT nosuch FROM customers ORDER BY id
SELECT id FROM customers ORDER BY id USING >
SELECT id FROM customers ORDER BY 'x'
SELECT id FROM customers ORDER BY NULL::text, id
SELECT id, CASE WHEN vip THEN 1 ELSE 2 END AS rank FROM customers ORDER BY rank, id
SELECT id FROM customers ORDER BY CASE WHEN vip THEN id END NULLS FIRST, id
SELECT id FROM customers ORDER BY coalesce(discount, 0), id
SELECT id FROM customers ORDER BY discount IS NULL, discount, id
SELECT id FROM customers WHERE city IS NULL ORDER BY id
SELECT id FROM customers WHERE id IN ('alice', 'bob', 'carol', 'nobody') ORDER BY id
SELECT id FROM customers WHERE id = 'alice' OR id = 'zoë' ORDER BY id DESC
SELECT id FROM customers WHERE id = 'alice' ORDER BY discount LIMIT 1
SELECT id FROM customers WHERE false ORDER BY id
SELECT id FROM customers WHERE id = ANY ('{alice,东,東}') ORDER BY id
SELECT id FROM customers WHERE id BETWEEN 'a' AND 'd' ORDER BY id
SELECT id FROM customers WHERE id LIKE 'c%' ORDER BY id DESC LIMIT 3
~ SELECT random() < 2 AS yes FROM customers ORDER BY 1 LIMIT 3
~ SELECT 1 FROM customers ORDER BY random()
~ SELECT random() FROM customers ORDER BY 1 LIMIT 0
SELECT customer, number FROM purchases ORDER BY customer, number
SELECT customer, number FROM purchases ORDER BY number, customer DESC
SELECT * FROM purchases ORDER BY amount, customer, number
SELECT * FROM purchases ORDER BY amount DESC, customer, number
SELECT * FROM purchases ORDER BY quantity, customer, number LIMIT 10
SELECT * FROM purchases ORDER BY placed, customer, number
SELECT * FROM purchases ORDER BY placed DESC NULLS LAST, customer, number OFFSET 5
SELECT customer, amount * quantity FROM purchases ORDER BY amount * quantity, customer, number
SELECT customer, amount * quantity AS total FROM purchases ORDER BY total DESC NULLS LAST, customer, number LIMIT 5
SELECT customer FROM purchases ORDER BY placed::date, customer, number
SELECT customer FROM purchases ORDER BY date_trunc('month', placed), customer, number
SELECT id, generate_series(1, 2) AS g FROM customers ORDER BY id, g
SELECT id FROM facts ORDER BY id
SELECT id FROM facts ORDER BY id DESC
SELECT id FROM facts ORDER BY -id
SELECT id FROM facts ORDER BY i2, id
SELECT id FROM facts ORDER BY i2 DESC, id
SELECT id FROM facts ORDER BY i4, id
SELECT id FROM facts ORDER BY i8 NULLS FIRST, id
SELECT id FROM facts ORDER BY n, id
SELECT id FROM facts ORDER BY n DESC NULLS LAST, id
SELECT id, n FROM facts ORDER BY n, id DESC
SELECT id FROM facts ORDER BY f4, id
SELECT id FROM facts ORDER BY f8, id
SELECT id FROM facts ORDER BY f8 DESC, id
SELECT id FROM facts ORDER BY b, id
SELECT id FROM facts ORDER BY t, id
SELECT id FROM facts ORDER BY c, id
SELECT id FROM facts ORDER BY v, id
SELECT id FROM facts ORDER BY p, id
SELECT id FROM facts ORDER BY d, id
SELECT id FROM facts ORDER BY ts, id
SELECT id FROM facts ORDER BY tz, id
SELECT id FROM facts ORDER BY tm, id
SELECT id FROM facts ORDER BY u, id
SELECT id FROM facts ORDER BY by, id
SELECT id FROM facts ORDER BY m, id
SELECT id FROM facts ORDER BY iv, id
SELECT id FROM facts ORDER BY j, id
SELECT * FROM facts ORDER BY u DESC, c, id
SELECT id FROM facts ORDER BY t COLLATE "en_US", id
SELECT id FROM facts ORDER BY t || c, id
SELECT id FROM facts ORDER BY id % 10, id
SELECT id FROM facts ORDER BY abs(id % 7), id DESC LIMIT 9 OFFSET 9
SELECT id FROM facts ORDER BY f8 = 'NaN', f8, id
SELECT id FROM items ORDER BY price, id
SELECT id FROM items ORDER BY owner, id
SELECT id, price FROM items WHERE price > 0 ORDER BY id LIMIT 3
SELECT id FROM items ORDER BY id FOR UPDATE
SELECT id FROM items WHERE id < 3 ORDER BY id DESC FOR SHARE NOWAIT
SELECT id FROM items WHERE id < 3 ORDER BY id FOR NO KEY UPDATE OF items SKIP LOCKED
SELECT id FROM items ORDER BY id LIMIT 2 FOR UPDATE SKIP LOCKED
SELECT id FROM items WHERE id IN (1, 2, 3, 4, 5) FOR UPDATE
SELECT id FROM items FOR KEY SHARE
SELECT * FROM customers
SELECT * FROM facts WHERE n = 'NaN'
SELECT 10 / (id - 5) FROM items ORDER BY id
SELECT 10 / (id - 5) FROM items
TABLE customers
TABLE customers ORDER BY id LIMIT 3
VALUES (1), (2) ORDER BY 1
