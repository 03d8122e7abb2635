"""pg8000 of Debian: pure Python, every statement by the extended protocol with Flush and Sync, types by OID."""
import io
import os

import pg8000

from common import *

show("driver:", pg8000.__version__)


def connect():
    return pg8000.connect(user=os.environ["PGUSER"], host=os.environ["PGHOST"], port=int(os.environ["PGPORT"]),
                          password=os.environ["PGPASSWORD"], database=os.environ["PGDATABASE"])


conn = connect()


def report(error):
    """pg8000's errors are all fields as a tuple, without their letters; where in Postgres's source an error arose is left out."""
    show("error:", type(error).__name__, [a for n, a in enumerate(error.args) if not (
        a.endswith((".c", ".l", ".y")) or error.args[n - 1].endswith((".c", ".l", ".y")) or error.args[n - 2].endswith((".c", ".l", ".y")))
        and a != ""] if all(isinstance(a, str) for a in error.args) else error.args)


def fails(function, *args, **kwargs):
    try:
        function(*args, **kwargs)
    except Exception as error:
        report(error)
    else:
        show("no error")


def recover():
    conn.rollback()


def query(sql, args=()):
    cur = conn.cursor()
    cur.execute(sql, args)
    return [list(r) for r in cur.fetchall()] if cur.description else cur.rowcount


def balances():
    return [query("select balance from accounts where id = %s", (who,))[0][0] for who in ("alice", "bob")]


@step("connect", recover)
def _():
    show(query("select version() like 'PostgreSQL 1%%', current_user, current_database(), 1::int2"))
    show(query("show client_encoding"), query("show datestyle"))
    conn.rollback()


@step("parameters", recover)
def _():
    for value in (row("t-1"), nulls("t-2"), row("t-3")):
        show(query("insert into types_demo (" + COLUMNS + ") values (" + ", ".join(
            ["cast(%s as jsonb)" if c == "j" else "%s" for c in COLUMNS.split(", ")]) + ")", value))
    conn.commit()
    for key in ("t-1", "t-2", "t-3"):
        cur = conn.cursor()
        cur.execute("select " + COLUMNS + " from types_demo where id = %s", (key,))
        show(cur.description)
        show([v.astimezone(datetime.timezone.utc) if isinstance(v, datetime.datetime) else v for v in cur.fetchone()])
    conn.commit()


@step("prepared", recover)
def _():
    for n, key in enumerate(DRIVER_KEYS[:20]):  # the driver keeps the statement
        show(query("update accounts set balance = balance + %s where id = %s returning id, balance", (n, key)))
    conn.commit()


@step("transfer", recover)
def _():
    show(query("update accounts set balance = balance - %s where id = %s", (100, "alice")))
    show(query("update accounts set balance = balance + %s where id = %s", (100, "bob")))
    conn.commit()
    show(balances())
    conn.rollback()


@step("check", recover)
def _():
    query("update accounts set balance = balance + 5000 where id = 'bob'")
    fails(query, "update accounts set balance = balance - 5000 where id = 'alice'")
    fails(query, "select 1")
    conn.commit()
    show(balances())
    conn.commit()


@step("savepoint", recover)
def _():
    query("update accounts set balance = balance - 1 where id = 'alice'")
    query("savepoint s")
    fails(query, "insert into accounts values ('bob', 1)")
    query("rollback to savepoint s")
    query("update accounts set balance = balance + 1 where id = 'bob'")
    query("release savepoint s")
    conn.commit()
    show(balances())
    conn.commit()


@step("batch", recover)
def _():
    cur = conn.cursor()
    cur.executemany("insert into accounts values (%s, %s)", [(k, n) for n, k in enumerate(KEYS)])
    show(cur.rowcount)
    cur.execute("select id, balance from accounts where id = any(%s)", (KEYS,))
    show(sorted(list(r) for r in cur.fetchall()))
    conn.commit()


@step("cursor", recover)
def _():
    cur = conn.cursor()
    cur.execute("declare part no scroll cursor for select order_id, quantity from orders where customer = 'carol' order by order_id")
    rows = []
    while True:
        cur.execute("fetch forward 10 from part")
        part = cur.fetchall()
        rows += [list(r) for r in part]
        if not part:
            break
    show(len(rows), rows[0], rows[-1])
    cur.execute("close part")
    conn.commit()


@step("copy", recover)
def _():
    cur = conn.cursor()
    cur.execute("copy accounts from stdin", stream=io.BytesIO("".join("c-%d\t%d\n" % (n, n) for n in range(10)).encode()))
    show(cur.rowcount)
    out = io.BytesIO()
    cur.execute("copy (select quantity, sku from orders where customer = 'carol' order by order_id limit 5) to stdout", stream=out)
    show(out.getvalue(), cur.rowcount)
    out = io.BytesIO()
    cur.execute("copy accounts to stdout", stream=out)
    show(sorted(out.getvalue().split(b"\n")))
    conn.commit()
    fails(cur.execute, "copy accounts from stdin", stream=io.BytesIO(b"f-1\t1\nf-2\tx\n"))
    conn.rollback()


@step("errors", recover)
def _():
    for statement in ("selec 1", "select * from no_such_table", "select 1/0", "insert into accounts values ('x', null)",
                      "insert into accounts values ('alice', 1)", "select no_such_column from accounts where id = 'alice'",
                      "insert into accounts values ('x', 'y')", "update accounts set balance = -1 where id = 'alice'"):
        try:
            query(statement)
        except Exception as error:
            report(error)
        conn.rollback()


@step("reconnect")
def _():
    global conn
    query("set application_name = 'first'")
    conn.commit()
    conn.close()
    conn = connect()
    show(query("show application_name"), balances())
    conn.close()
