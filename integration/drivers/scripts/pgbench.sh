#!/usr/bin/env bash
# pgbench in the mode that the argument names: transfers between the nodes, by one client and by several.
set -uo pipefail
mode=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
echo "driver: $(pgbench --version | cut -d" " -f3)"

# What is the same in every run: counts and errors, no times. One seed: the same random numbers, so the same rows in the end.
bench() { pgbench -n -M "$mode" --random-seed=42 "$@" 2>&1 | grep -E 'actually processed|failed|rror|ERROR|DETAIL|abort|retried'; }
balances() { psql -X -At -c "select id, balance from accounts where id = 'alice'" -c "select id, balance from accounts where id = 'bob'"; }

echo "== transfer"
cat >"$dir/transfer" <<'SQL'
\set from random(0, 19)
\set to random(20, 39)
\set amount random(1, 3)
SELECT 'd-' || lpad(:from::text, 2, '0') AS giver, 'd-' || lpad(:to::text, 2, '0') AS taker \gset
BEGIN;
UPDATE accounts SET balance = balance - :amount WHERE id = :giver;
UPDATE accounts SET balance = balance + :amount WHERE id = :taker;
END;
SQL
# In simple mode a variable is put into the text as it is.
if [ "$mode" = simple ]; then sed -i "s/= :giver/= ':giver'/; s/= :taker/= ':taker'/" "$dir/transfer"; fi
bench -c 1 -t 100 -f "$dir/transfer"

echo "== batch"
cat >"$dir/many" <<'SQL'
BEGIN;
UPDATE accounts SET balance = balance - 1 WHERE id = 'alice';
UPDATE accounts SET balance = balance + 1 WHERE id = 'bob';
INSERT INTO orders VALUES ('p-1', '00000000-0000-0000-0000-000000000001', 'x', 1, 1)
    ON CONFLICT (customer, order_id) DO UPDATE SET quantity = orders.quantity + 1;
END;
SQL
bench -c 4 -j 2 -t 25 -f "$dir/many"

echo "== prepared"
cat >"$dir/select" <<'SQL'
SELECT balance FROM accounts WHERE id = 'alice';
SELECT id, balance FROM accounts WHERE id = 'bob';
SQL
bench -c 4 -j 2 -t 100 -f "$dir/select"
cat >"$dir/gset" <<'SQL'
BEGIN;
SELECT balance FROM accounts WHERE id = 'alice' FOR UPDATE \gset
UPDATE accounts SET balance = :balance + 1 WHERE id = 'alice';
END;
SQL
bench -c 2 -t 25 -f "$dir/gset"
balances

echo "== check"
cat >"$dir/check" <<'SQL'
BEGIN;
UPDATE accounts SET balance = balance + 100000 WHERE id = 'bob';
UPDATE accounts SET balance = balance - 100000 WHERE id = 'alice';
END;
SQL
bench -c 1 -t 5 -f "$dir/check"
balances

if [ "$mode" != simple ]; then
    echo "== pipeline"
    cat >"$dir/pipeline" <<'SQL'
\startpipeline
BEGIN;
UPDATE accounts SET balance = balance - 1 WHERE id = 'alice';
UPDATE accounts SET balance = balance + 1 WHERE id = 'bob';
SELECT balance FROM accounts WHERE id = 'd-01';
END;
\endpipeline
SQL
    bench -c 2 -t 25 -f "$dir/pipeline"
    balances
fi
