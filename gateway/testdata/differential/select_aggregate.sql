# Aggregates, GROUP BY, HAVING, DISTINCT over several nodes.
SELECT count(*) FROM customers
SELECT count(*) FROM customers WHERE false
SELECT count(*), count(city), count(DISTINCT id) FROM customers
SELECT count(DISTINCT city) FROM customers
SELECT count(DISTINCT city), count(*), max(id) FROM customers
SELECT vip, count(DISTINCT city) FROM customers GROUP BY vip ORDER BY vip
SELECT count(DISTINCT city), count(DISTINCT note) FROM customers
SELECT count(DISTINCT id) FILTER (WHERE vip) FROM customers
SELECT count(DISTINCT city) FILTER (WHERE vip) FROM customers
SELECT sum(DISTINCT quantity), avg(DISTINCT quantity), min(DISTINCT quantity) FROM purchases
SELECT sum(DISTINCT number) FROM purchases WHERE false
SELECT count(DISTINCT number) FROM purchases WHERE false
SELECT sum(quantity), avg(quantity), min(quantity), max(quantity) FROM purchases
SELECT sum(amount), avg(amount), min(amount), max(amount) FROM purchases
SELECT sum(amount) FROM purchases WHERE false
SELECT avg(amount), count(amount) FROM purchases WHERE false
SELECT sum(i2), sum(i4), sum(i8), sum(n) FROM facts
SELECT sum(i8) FROM facts WHERE i8 > 0
SELECT avg(i2), avg(i4), avg(i8) FROM facts
SELECT avg(n) FROM facts WHERE n < 1000
SELECT avg(n), sum(n) FROM facts
SELECT sum(n) FROM facts WHERE n <> 'NaN'
SELECT avg(n) FROM facts WHERE n IN ('Infinity', 1)
SELECT sum(n), avg(n) FROM facts WHERE n IN (1.00, 0.00001, 0.1)
SELECT sum(f8) FROM facts
SELECT avg(f4) FROM facts
SELECT sum(f8::numeric) FROM facts WHERE f8 BETWEEN -10 AND 10
SELECT min(f8), max(f8) FROM facts
SELECT sum(iv) FROM facts
SELECT avg(iv) FROM facts
SELECT sum(m), max(m) FROM facts
SELECT min(t), max(t), min(c), max(c), min(v), max(v) FROM facts
SELECT min(d), max(d), min(ts), max(ts), min(tz), max(tz), min(tm), max(tm) FROM facts
SELECT bool_and(b), bool_or(b), every(b) FROM facts
SELECT bool_and(b), bool_or(b) FROM facts WHERE false
SELECT bit_and(i4), bit_or(i4), bit_xor(i4) FROM facts
SELECT min(id), max(id) FROM facts
SELECT coalesce(sum(amount), 0) FROM purchases WHERE customer = 'nobody' OR customer = 'nobodyelse'
SELECT coalesce(sum(quantity), 0) + 1 AS total FROM purchases
SELECT sum(quantity) * 2, -count(*), sum(quantity)::text || 'x' FROM purchases
SELECT sum(amount * 2 + 1), sum(CASE WHEN state = 'paid' THEN amount ELSE 0 END) FROM purchases
SELECT sum(amount) FILTER (WHERE state = 'paid'), count(*) FILTER (WHERE amount > 0) FROM purchases
SELECT round(avg(amount), 2) FROM purchases
SELECT count(*) > 10 FROM customers
SELECT count(*) AS n FROM customers HAVING count(*) > 1000
SELECT count(*) AS n FROM customers HAVING count(*) > 1
SELECT 1 FROM customers HAVING true
SELECT 1 FROM customers HAVING false
SELECT 'x' AS label, count(*) FROM customers
SELECT count(*) FROM customers LIMIT 0
SELECT count(*) FROM customers OFFSET 1
SELECT count(1), count(NULL) FROM customers
SELECT city, count(*) FROM customers GROUP BY city
SELECT city, count(*) FROM customers GROUP BY city ORDER BY city
SELECT city, count(*) FROM customers GROUP BY city ORDER BY count(*) DESC, city
SELECT city, count(*) AS n FROM customers GROUP BY city ORDER BY n DESC, city NULLS FIRST LIMIT 3
SELECT city AS town, count(*) FROM customers GROUP BY town ORDER BY town
SELECT city, count(*) FROM customers GROUP BY 1 ORDER BY 1 DESC
SELECT count(*), city FROM customers GROUP BY 2 ORDER BY 2
SELECT city, vip, count(*) FROM customers GROUP BY city, vip ORDER BY city, vip
SELECT city FROM customers GROUP BY city HAVING count(*) > 3 ORDER BY city
SELECT city FROM customers GROUP BY city HAVING max(id) > 'c' AND city <> '' ORDER BY city
SELECT upper(city), count(*) FROM customers GROUP BY upper(city) ORDER BY 1
SELECT length(city) AS l, min(id) FROM customers GROUP BY l ORDER BY l
SELECT length(city) + 1, count(*) FROM customers GROUP BY length(city) ORDER BY 1
SELECT customers.city, count(*) FROM customers GROUP BY city ORDER BY 1
SELECT city, count(*) FROM customers c GROUP BY c.city ORDER BY c.city
SELECT count(*) FROM customers GROUP BY city ORDER BY 1
SELECT state, sum(amount), avg(amount), count(*) FROM purchases GROUP BY state ORDER BY state
SELECT state, sum(quantity) FROM purchases GROUP BY state HAVING sum(quantity) > 0 ORDER BY sum(quantity), state
SELECT quantity, count(*) FROM purchases GROUP BY quantity ORDER BY quantity
SELECT placed, count(*) FROM purchases GROUP BY placed ORDER BY placed
SELECT placed::date, sum(amount) FROM purchases GROUP BY placed::date ORDER BY 1
SELECT date_trunc('year', placed) AS year, count(*) FROM purchases GROUP BY 1 ORDER BY 1
SELECT number % 2 AS odd, sum(amount) FROM purchases GROUP BY odd ORDER BY odd
SELECT customer, count(*) FROM purchases GROUP BY customer ORDER BY customer
SELECT customer, sum(amount) FROM purchases GROUP BY customer ORDER BY sum(amount) DESC NULLS LAST, customer LIMIT 5
SELECT customer, string_agg(number::text, ',' ORDER BY number) FROM purchases GROUP BY customer ORDER BY customer
SELECT customer, sum(amount) FROM purchases GROUP BY customer HAVING sum(amount) > 10 ORDER BY 1
SELECT customer, state, count(*) FROM purchases GROUP BY customer, state ORDER BY customer, state
SELECT sum(amount) FROM purchases GROUP BY customer ORDER BY 1 NULLS FIRST
SELECT string_agg(id, ',') FROM customers
SELECT array_agg(id ORDER BY id) FROM customers
SELECT stddev(quantity) FROM purchases
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY quantity) FROM purchases
SELECT state, count(*) FROM purchases GROUP BY ROLLUP (state)
SELECT state, GROUPING(state), count(*) FROM purchases GROUP BY state
SELECT city, id FROM customers GROUP BY id ORDER BY id
SELECT city, id FROM customers GROUP BY city
SELECT city FROM customers HAVING count(*) > 1
SELECT sum(city) FROM customers
SELECT nosuch(id) FROM customers
SELECT count(*) FROM nosuch
SELECT DISTINCT city FROM customers
SELECT DISTINCT city FROM customers ORDER BY city
SELECT DISTINCT city FROM customers ORDER BY city DESC NULLS LAST LIMIT 3
SELECT DISTINCT city, vip FROM customers ORDER BY 1, 2
SELECT DISTINCT upper(city) AS u FROM customers ORDER BY u
SELECT DISTINCT upper(city) FROM customers ORDER BY upper(city)
SELECT DISTINCT * FROM customers ORDER BY id
SELECT DISTINCT id, city FROM customers ORDER BY id
SELECT DISTINCT customer FROM purchases ORDER BY customer
SELECT DISTINCT state, quantity FROM purchases ORDER BY state, quantity OFFSET 2 LIMIT 4
SELECT DISTINCT city FROM customers ORDER BY id
SELECT DISTINCT count(*) FROM customers GROUP BY city ORDER BY 1
SELECT DISTINCT count(*) FROM purchases GROUP BY customer ORDER BY 1
SELECT DISTINCT c FROM facts ORDER BY c
SELECT DISTINCT j FROM facts
SELECT DISTINCT d FROM facts ORDER BY d
SELECT DISTINCT by FROM facts ORDER BY by
SELECT DISTINCT b, i4 FROM facts ORDER BY b, i4
SELECT DISTINCT ON (customer) customer, number FROM purchases ORDER BY customer, number DESC
SELECT DISTINCT ON (state) state, customer FROM purchases ORDER BY state, customer
SELECT c, count(*) FROM facts GROUP BY c ORDER BY c
SELECT t, count(*), sum(i4) FROM facts GROUP BY t ORDER BY t
SELECT d, count(*) FROM facts GROUP BY d ORDER BY d
SELECT b, max(n) FROM facts GROUP BY b ORDER BY b
SELECT u, count(*) FROM facts GROUP BY u ORDER BY u
SELECT p, count(*) FROM facts GROUP BY p ORDER BY p
SELECT v, count(*) FROM facts GROUP BY v ORDER BY v
SELECT count(*) FROM facts WHERE id IN (0, 1, -1)
SELECT count(*), sum(id) FROM facts WHERE id = ANY ('{0,1,-1,5}')
SELECT sum(price) FROM items
SELECT owner, sum(price) FROM items GROUP BY owner ORDER BY owner
SELECT sum(price), avg(price) FROM items WHERE id BETWEEN -5 AND 5
SELECT max(price) - min(price) FROM items
SELECT row_number() OVER (ORDER BY id) FROM customers
SELECT customer, number, row_number() OVER (PARTITION BY customer ORDER BY number) FROM purchases ORDER BY 1, 2
SELECT customer, sum(quantity::bigint) OVER (PARTITION BY customer ORDER BY number) FROM purchases ORDER BY customer, number
SELECT sum(count(*)) OVER () FROM customers GROUP BY city
SELECT count(*) FROM purchases FOR UPDATE
SELECT pg_catalog.count(*), pg_catalog.sum(number) FROM public.purchases
SELECT 10 / (count(*) - count(*)) FROM customers
SELECT avg(number), avg(number * 1.0), avg(number::bigint), avg(number::smallint) FROM purchases
SELECT sum(number::smallint), sum(number::bigint), sum(number::numeric(10, 3)) FROM purchases
SELECT count(*) FROM (SELECT 1 FROM customers) x
SELECT (SELECT count(*) FROM customers)
SELECT count(*) FROM customers UNION ALL SELECT 1
WITH x AS (SELECT * FROM customers) SELECT count(*) FROM x
