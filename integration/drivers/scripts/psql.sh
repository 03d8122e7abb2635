#!/usr/bin/env bash
# psql: meta commands, variables, ON_ERROR_ROLLBACK, \copy, \watch, pipes, Ctrl-C.
set -uo pipefail
psql() { command psql -X --no-password -v VERBOSITY=verbose "$@" 2>&1 | sed -E '/^LOCATION:/d; s/psql:<stdin>:[0-9]+: //'; }

echo "driver: $(command psql --version | cut -d" " -f3)"

echo "== connect"
psql <<'SQL'
select current_user, current_database(), 1 as one, null as nothing;
\echo :SERVER_VERSION_NUM :ENCODING :DBNAME :USER
\encoding
show server_version;
SQL

echo "== parameters"
psql <<'SQL'
\set key 't-1'
\set text 'it''s "quoted" \\ € 😀 $1'
insert into types_demo values (:'key', -2147483648, 9223372036854775807, :'text', '0b7e3f5c-4c8e-4d3b-9a6e-1f2d3c4b5a69', 12345678901234567890.000123456789,
    '2024-02-29 23:59:58.123456+00', true, 0.1, '\x00ff10', '{"a": [1, null, "ü"]}', '{1,NULL,3}', '{x,NULL,"a \"b\", {c}"}');
insert into types_demo (id) values ('t-2');
insert into types_demo (id, i) values ('t-3', 1);
\pset null '(null)'
\x on
select * from types_demo where id = 't-1';
select * from types_demo where id = 't-2';
\x off
select id, i, n, ts, a, ta from types_demo where id = 't-3' \gx
select id, balance from accounts where id = 'alice' \gdesc
select balance as b from accounts where id = 'alice' \gset got_
\echo :got_b :ROW_COUNT :SQLSTATE :ERROR
set timezone = 'Asia/Tokyo';
set datestyle = 'German';
select ts from types_demo where id = 't-1';
\pset format csv
select id, ta, y from types_demo where id = 't-1';
SQL

echo "== prepared"
psql <<'SQL'
prepare add_one (bigint, text) as update accounts set balance = balance + $1 where id = $2 returning id, balance;
execute add_one (1, 'd-00');
execute add_one (2, 'd-01');
execute add_one (3, 'd-02');
execute add_one ('x', 'd-02');
begin;
execute add_one (4, 'd-03');
execute add_one (5, 'd-04');
execute add_one (6, 'd-05');
rollback;
deallocate add_one;
execute add_one (1, 'd-00');
SQL

echo "== transfer"
psql -v PROMPT1='%/%R%x%# ' <<'SQL'
begin;
update accounts set balance = balance - 100 where id = 'alice';
update accounts set balance = balance + 100 where id = 'bob';
commit;
select balance from accounts where id = 'alice';
select balance from accounts where id = 'bob';
SQL
psql -c "begin; update accounts set balance = balance - 1 where id = 'alice'; update accounts set balance = balance + 1 where id = 'bob'; commit"
psql -1 -c "update accounts set balance = balance - 1 where id = 'alice'" -c "update accounts set balance = balance + 1 where id = 'bob'"
psql -c "update accounts set balance = balance - 1 where id = 'alice'; update accounts set balance = balance + 1 where id = 'bob'"
psql -At -c "select balance from accounts where id = 'bob'"

echo "== check"
psql <<'SQL'
begin;
update accounts set balance = balance + 5000 where id = 'bob';
update accounts set balance = balance - 5000 where id = 'alice';
select 1;
commit;
\echo :SQLSTATE :ERROR :LAST_ERROR_SQLSTATE :LAST_ERROR_MESSAGE
select balance from accounts where id = 'bob';
SQL
psql -v ON_ERROR_STOP=1 -c "update accounts set balance = balance + 5000 where id = 'bob'; update accounts set balance = balance - 5000 where id = 'alice'"
echo "status ${PIPESTATUS[0]}"
psql -At -c "select balance from accounts where id = 'bob'"

echo "== savepoint"
psql <<'SQL'
\set ON_ERROR_ROLLBACK on
begin;
update accounts set balance = balance - 1 where id = 'alice';
insert into accounts values ('bob', 1);
update accounts set balance = balance + 1 where id = 'bob';
savepoint s;
update accounts set balance = 0 where id = 'bob';
rollback to s;
release s;
rollback to s;
commit and chain;
select 1;
commit;
select balance from accounts where id = 'alice';
select balance from accounts where id = 'bob';
SQL

echo "== batch"
{ for n in $(seq 0 99); do echo "insert into accounts values ('k-$n', $n);"; done; } | psql -q -1
psql -c "select balance from accounts where id = 'k-77'; select 2; update accounts set balance = balance + 1 where id in ('k-1', 'k-2', 'k-3', 'k-4')"
psql -At -c "select balance from accounts where id in ('k-1', 'k-2', 'k-3', 'k-4')" | sort
echo "select format('select balance from accounts where id = %L', 'k-' || n) from generate_series(1, 3) n \gexec" | psql

echo "== cursor"
psql <<'SQL'
\set FETCH_COUNT 10
select quantity, sku from orders where customer = 'carol' order by order_id;
\set FETCH_COUNT 0
begin;
declare part scroll cursor for select quantity from orders where customer = 'carol' order by order_id;
fetch 3 from part;
move 5 from part;
fetch backward 2 from part;
fetch last from part;
close part;
fetch 3 from part;
rollback;
SQL

echo "== copy"
psql <<'SQL'
copy accounts from stdin;
c-1	1
c-2	2
c-3	3
\.
copy (select quantity, sku from orders where customer = 'carol' order by order_id limit 5) to stdout with (format csv, header);
\copy (select id, balance from accounts where id = 'c-2') to stdout
copy accounts from stdin with (format csv);
e-1,1
e-2,x
\.
copy accounts (id) from stdin;
f-1
\.
select 1;
SQL
printf 'g-1,1\ng-2,2\ng-3,3\n' | psql -c "\copy accounts from stdin csv"
psql -c "copy accounts to stdout" | sort

echo "== cancel"
# Ctrl-C: psql sends a CancelRequest on SIGINT; a background job of a script ignores SIGINT, which python undoes.
cat >"${TMPDIR:-/tmp}/pgpact-cancel.$$" <<'SQL'
select pg_sleep(30);
select 'goes on';
SQL
/usr/bin/python3 - "${TMPDIR:-/tmp}/pgpact-cancel.$$" <<'PYTHON'
import signal, subprocess, sys, time
client = subprocess.Popen(["psql", "-X", "--no-password", "-v", "VERBOSITY=terse", "-v", "ON_ERROR_STOP=0"], stdin=open(sys.argv[1]),
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
time.sleep(0.5)
client.send_signal(signal.SIGINT)
print(client.communicate(timeout=40)[0])
PYTHON
rm -f "${TMPDIR:-/tmp}/pgpact-cancel.$$"
psql <<'SQL'
set statement_timeout = '200ms';
select pg_sleep(30);
select 'goes on';
SQL

echo "== errors"
psql <<'SQL'
selec 1;
select * from no_such_table;
select 1/0;
insert into accounts values ('x', null);
insert into accounts values ('alice', 1);
select no_such_column from accounts where id = 'alice';
select 'a'::int;
begin;
begin;
commit;
commit;
\errverbose
SQL

echo "== reconnect"
psql <<'SQL'
set application_name = 'first';
set statement_timeout = '10s';
\connect
select current_setting('application_name'), current_setting('statement_timeout');
SQL
PGOPTIONS='-c statement_timeout=7s -c search_path=public' PGAPPNAME=second psql -At -c "show statement_timeout" -c "show application_name" -c "show search_path"
PGCLIENTENCODING=UTF8 psql -At -c "show client_encoding"
psql -d no_such_database -c "select 1" | sed -E 's/at "[^"]*", port [0-9]+/at HOST, port PORT/'

echo "== interactive"
/usr/bin/python3 psql_interactive.py

echo "== introspect"
psql <<'SQL'
\d
\dt
\d accounts
\d+ orders
\d no_such_table
\di
\dn public
\df bucket
\dT
\dp accounts
\sf no_such_function
\dconfig work_mem
SQL
psql -c '\l' | grep -c pgpact
psql -c '\du' | grep -c pgpact
