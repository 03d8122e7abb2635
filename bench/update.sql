\set id random(1, :accounts)
\set delta random(-5, 5)
UPDATE bench_accounts SET balance = balance + :delta WHERE id = :id;
