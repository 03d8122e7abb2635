"""psqlODBC through unixODBC and pyodbc, with its defaults and with cursors declared and fetched on the server."""
import os

import pyodbc

from common import *

pyodbc.pooling = False
BASE = ";".join("%s=%s" % pair for pair in {
    "Driver": "PostgreSQL Unicode", "Server": os.environ["PGHOST"], "Port": os.environ["PGPORT"], "Uid": os.environ["PGUSER"],
    "Pwd": os.environ["PGPASSWORD"], "Database": os.environ["PGDATABASE"]}.items())
conn = pyodbc.connect(BASE)
show("driver:", conn.getinfo(pyodbc.SQL_DRIVER_VER), "pyodbc", pyodbc.version)


def recover():
    conn.rollback()


def query(sql, *args, on=None):
    cur = (on or conn).execute(sql, *args)
    return [list(r) for r in cur.fetchall()] if cur.description else cur.rowcount


def balances():
    return [query("select balance from accounts where id = ?", who)[0][0] for who in ("alice", "bob")]


@step("connect", recover)
def _():
    for name in ("SQL_DBMS_NAME", "SQL_DBMS_VER", "SQL_DATABASE_NAME", "SQL_USER_NAME", "SQL_TXN_CAPABLE", "SQL_DEFAULT_TXN_ISOLATION"):
        show(name, conn.getinfo(getattr(pyodbc, name)))
    show(query("select current_user, current_database(), 1"))
    conn.rollback()


@step("parameters", recover)
def _():
    casts = {"u": "cast(? as uuid)", "j": "cast(? as jsonb)", "a": "cast(? as int[])", "ta": "cast(? as text[])"}
    sql = "insert into types_demo (" + COLUMNS + ") values (" + ", ".join(casts.get(c, "?") for c in COLUMNS.split(", ")) + ")"
    for value in (row("t-1"), nulls("t-2"), row("t-3")):
        if value[1]:
            value[4], value[6] = str(value[4]), value[6].replace(tzinfo=None)
            value[11], value[12] = "{1,NULL,3}", '{x,NULL,"a \\"b\\""}'
        show(query(sql, *value))
    conn.commit()
    for key in ("t-1", "t-2", "t-3"):
        cur = conn.execute("select " + COLUMNS + " from types_demo where id = ?", key)
        show(cur.description)
        show(list(cur.fetchone()))
    conn.commit()


@step("prepared", recover)
def _():
    cur = conn.cursor()
    for n, key in enumerate(DRIVER_KEYS[:20]):
        cur.execute("update accounts set balance = balance + ? where id = ? returning id, balance", n, key)
        show(list(cur.fetchone()))
    conn.commit()


@step("transfer", recover)
def _():
    show(query("update accounts set balance = balance - ? where id = ?", 100, "alice"))
    show(query("update accounts set balance = balance + ? where id = ?", 100, "bob"))
    conn.commit()
    show(balances())
    conn.rollback()


@step("check", recover)
def _():
    query("update accounts set balance = balance + 5000 where id = 'bob'")
    fails(query, "update accounts set balance = balance - 5000 where id = 'alice'")
    fails(query, "select 1")
    conn.rollback()
    show(balances())
    conn.commit()


@step("savepoint", recover)
def _():
    query("update accounts set balance = balance - 1 where id = 'alice'")
    query("savepoint s")
    fails(query, "insert into accounts values ('bob', 1)")
    query("rollback to savepoint s")
    query("update accounts set balance = balance + 1 where id = 'bob'")
    conn.commit()
    show(balances())
    conn.commit()
    # The driver's own savepoint around every statement (ON_ERROR_ROLLBACK's way).
    own = pyodbc.connect(BASE + ";Protocol=7.4-2")
    query("update accounts set balance = balance - 1 where id = 'alice'", on=own)
    fails(query, "insert into accounts values ('bob', 1)", on=own)
    query("update accounts set balance = balance + 1 where id = 'bob'", on=own)
    own.commit()
    own.close()
    show(balances())
    conn.commit()


@step("batch", recover)
def _():
    cur = conn.cursor()
    cur.executemany("insert into accounts values (?, ?)", [(k, n) for n, k in enumerate(KEYS)])
    cur.fast_executemany = True
    cur.executemany("update accounts set balance = balance + ? where id = ?", [(n, k) for n, k in enumerate(KEYS)])
    cur.execute("select id, balance from accounts where id = any(cast(? as text[]))", "{" + ",".join(KEYS) + "}")
    show(sorted(list(r) for r in cur.fetchall()))
    cur.execute("select 1; select 2, 'b'")
    show([list(r) for r in cur.fetchall()], cur.nextset(), [list(r) for r in cur.fetchall()])
    conn.commit()


@step("cursor", recover)
def _():
    query("declare part cursor for select quantity from orders where customer = 'carol' order by order_id")
    show(query("fetch 3 from part"), len(query("fetch all from part")))
    conn.commit()


@step("cursor with hold", recover)  # the driver's own
def _():
    fetching = pyodbc.connect(BASE + ";UseDeclareFetch=1;Fetch=10")
    cur = fetching.execute("select order_id, quantity from orders where customer = ? order by order_id", "carol")
    show(list(cur.fetchone()), sum(r[1] for r in cur.fetchmany(20)), len(cur.fetchall()))
    fetching.commit()
    fetching.close()


@step("cancel", recover)
def _():
    cur = conn.cursor()
    timer = after(0.5, cur.cancel)
    fails(cur.execute, "select pg_sleep(30)")
    timer.join()
    conn.rollback()
    show(query("select 1"))
    conn.rollback()


@step("errors", recover)
def _():
    for statement in ("selec 1", "select * from no_such_table", "select 1/0", "insert into accounts values ('x', null)",
                      "insert into accounts values ('alice', 1)", "select no_such_column from accounts where id = 'alice'",
                      "insert into accounts values ('x', 'y')", "update accounts set balance = -1 where id = 'alice'"):
        fails(query, statement)
        conn.rollback()


@step("reconnect")
def _():
    global conn
    query("set application_name = 'first'")
    conn.commit()
    conn.close()
    conn = pyodbc.connect(BASE)
    show(query("show application_name"), balances())
    conn.rollback()


@step("introspect", recover)
def _():
    cur = conn.cursor()
    show([list(r) for r in cur.tables(schema="public")])
    show([list(r)[:22] for r in cur.columns(table="accounts", schema="public")])  # then OIDs of tables, which differ
    show([list(r) for r in cur.primaryKeys("orders", schema="public")])
    show([list(r)[1:9] for r in cur.statistics("orders", schema="public")])
    show([r[0:2] for r in cur.getTypeInfo()][:20])
