-- from and to are set by lines that the runner puts in front: they lie on different nodes (the same ids are used on the plain server).
\set amount random(-5, 5)
BEGIN;
UPDATE bench_accounts SET balance = balance - :amount WHERE id = :from;
UPDATE bench_accounts SET balance = balance + :amount WHERE id = :to;
COMMIT;
