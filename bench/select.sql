\set id random(1, :accounts)
SELECT balance FROM bench_accounts WHERE id = :id;
