"""psycopg 3: libpq, extended protocol, parameters by the server, pipeline mode, binary where asked."""
import asyncio
import logging

import psycopg
from psycopg.types.json import Jsonb

from common import *

show("driver:", psycopg.__version__, "libpq", psycopg.pq.version())
# A pipeline warns if its error has come before its end: how soon it comes is no matter of right and wrong.
logging.getLogger("psycopg").setLevel(logging.ERROR)
conn = psycopg.connect("")


def recover():
    global conn
    if conn.closed:
        conn = psycopg.connect("")
    conn.rollback()


def query(sql, args=None, **more):
    cur = conn.execute(sql, args, **more)
    return cur.fetchall() if cur.description else (cur.statusmessage, cur.rowcount)


def balances():
    return [query("select balance from accounts where id = %s", (who,))[0][0] for who in ("alice", "bob")]


@step("connect", recover)
def _():
    info = conn.info
    show(info.server_version, info.encoding, info.transaction_status.name, info.backend_pid > 0, info.vendor)
    for name in ("server_version", "server_encoding", "client_encoding", "is_superuser", "session_authorization", "DateStyle", "IntervalStyle",
                 "TimeZone", "integer_datetimes", "standard_conforming_strings", "application_name", "in_hot_standby", "default_transaction_read_only"):
        show(name, info.parameter_status(name))
    show(query("select current_user, current_database(), 1::int2, current_schemas(false)"))
    conn.rollback()


@step("parameters", recover)
def _():
    for binary in (False, True):
        for value in (row("t-%d" % binary), nulls("u-%d" % binary)):
            value[10] = value[10] and Jsonb({"a": [1, None, "ü"]})
            show(query("insert into types_demo (" + COLUMNS + ") values (" + ", ".join(["%b" if binary else "%t"] * 13) + ")", value))
        conn.commit()
        for key in ("t-0", "u-0", "t-1", "u-1"):
            cur = conn.execute("select " + COLUMNS + " from types_demo where id = %s", (key,), binary=binary)
            show([(d.name, d.type_code, d.internal_size, d.precision, d.scale) for d in cur.description] if cur.description else None)
            show(cur.fetchone())
    show(query("select %s::int, %s::text, %s::text[], %s::int", (1, "x", ["a"], None)))
    fails(query, "select %s + 1, 'x' || %s", ("a", 1))
    conn.commit()


@step("prepared", recover)
def _():
    for n, key in enumerate(DRIVER_KEYS[:20]):
        show(query("update accounts set balance = balance + %s where id = %s returning id, balance", (n, key), prepare=True))
    conn.commit()
    for key in DRIVER_KEYS[:8]:  # prepared after the fifth
        show(query("select balance from accounts where id = %s", (key,)))
        conn.commit()
    for n in range(120):  # more statements than the driver keeps: DEALLOCATE
        query("select balance, %d from accounts where id = %%s" % n, ("alice",), prepare=True)
    conn.commit()
    for n, key in enumerate(DRIVER_KEYS[:20]):
        query("prepare p%d (bigint, text) as update accounts set balance = balance + $1 where id = $2 returning id, balance" % n)
        show(query("execute p%d (%d, '%s')" % (n, n, key)))
    query("deallocate all")
    conn.commit()


@step("transfer", recover)
def _():
    with conn.transaction():
        show(query("update accounts set balance = balance - %s where id = %s", (100, "alice")), conn.info.transaction_status.name)
        show(query("update accounts set balance = balance + %s where id = %s", (100, "bob")))
    show(balances(), conn.info.transaction_status.name)
    conn.rollback()


@step("check", recover)
def _():
    query("update accounts set balance = balance + %s where id = %s", (5000, "bob"))
    fails(query, "update accounts set balance = balance - %s where id = %s", (5000, "alice"))
    show(conn.info.transaction_status.name)
    fails(query, "select 1")
    conn.commit()
    show(conn.info.transaction_status.name, balances())
    conn.commit()


@step("savepoint", recover)
def _():
    with conn.transaction():
        query("update accounts set balance = balance - 1 where id = 'alice'")
        try:
            with conn.transaction():
                query("insert into accounts values ('bob', 1)")
        except psycopg.errors.UniqueViolation as error:
            report(error)
        with conn.transaction("named"):
            query("update accounts set balance = balance + 1 where id = 'bob'")
        try:
            with conn.transaction("thrown away"):
                query("update accounts set balance = 0 where id = 'bob'")
                raise psycopg.Rollback
        except psycopg.Rollback:
            show("rolled back")
    show(balances())
    conn.commit()


@step("batch", recover)
def _():
    with conn.cursor() as cur:
        cur.executemany("insert into accounts values (%s, %s)", [(k, n) for n, k in enumerate(KEYS)])
        show(cur.rowcount)
        cur.executemany("update accounts set balance = balance + %s where id = %s returning id", [(n, k) for n, k in enumerate(KEYS)], returning=True)
        while True:
            show(cur.fetchall())
            if not cur.nextset():
                break
        cur.execute("select id, balance from accounts where id = any(%s)", (KEYS,))
        show(sorted(cur.fetchall()))
    conn.commit()
    with conn.pipeline() as pipe:
        curs = [conn.execute("update accounts set balance = balance + 1 where id = %s returning balance", (key,)) for key in KEYS * 25]
        pipe.sync()
        show([cur.fetchone() for cur in curs][-12:])
    conn.commit()
    try:
        with conn.pipeline():
            conn.execute("update accounts set balance = balance + 1 where id = %s", ("alice",))
            conn.execute("update accounts set balance = balance - 100000 where id = %s", ("bob",))
            conn.execute("select 1")
    except psycopg.Error as error:
        report(error)
    conn.rollback()
    show(balances())
    conn.rollback()
    conn.autocommit = True
    try:  # one implicit transaction until the sync
        with conn.pipeline():
            conn.execute("update accounts set balance = balance + 1 where id = %s", ("alice",))
            conn.execute("update accounts set balance = balance - 100000 where id = %s", ("bob",))
    except psycopg.Error as error:
        report(error)
    show(balances())
    conn.autocommit = False


@step("cursor", recover)
def _():
    with conn.cursor("some") as cur:
        cur.itersize = 10
        cur.execute("select order_id, quantity, amount from orders where customer = %s order by order_id", ("carol",))
        show(sum(r[1] for r in cur))
    for binary in (False, True):
        with conn.cursor("everybody", binary=binary) as cur:  # of all nodes
            cur.itersize = 7
            cur.execute("""select id, length(id) from accounts where id >= 'd-' and id < 'e' order by id collate "C" desc""")
            show(cur.fetchone())
            cur.scroll(3)
            show(list(cur))
    with conn.cursor("scrolling", scrollable=True, binary=True) as cur:
        cur.execute("select quantity from orders where customer = 'carol' order by order_id")
        show(cur.fetchmany(7), cur.fetchone())
        cur.scroll(-3)
        show(cur.fetchmany(2))
    conn.commit()
    cur = conn.cursor()
    show([r[0] for r in cur.stream("select quantity from orders where customer = %s order by order_id", ("carol",))][:3])
    show(sorted(r[0] for r in cur.stream("select id from accounts where id like 'd-%'"))[-3:])
    conn.commit()


@step("copy", recover)
def _():
    with conn.cursor() as cur:
        with cur.copy("copy accounts (id, balance) from stdin") as copy:
            for n in range(10):
                copy.write_row(("c-%d" % n, n))
        show(cur.rowcount, cur.statusmessage)
        with cur.copy("copy accounts (id, balance) from stdin (format binary)") as copy:
            copy.set_types(["text", "int8"])
            for n in range(10):
                copy.write_row(("b-%d" % n, n))
        show(cur.rowcount, cur.statusmessage)
        with cur.copy("copy (select quantity, sku from orders where customer = 'carol' order by order_id limit 5) to stdout") as copy:
            show(list(copy.rows()))
        with cur.copy("copy accounts to stdout (format binary)") as copy:
            copy.set_types(["text", "int8"])
            show(sorted(r for r in copy.rows()))
        with cur.copy("copy (select id from accounts where id = %s) to stdout", ("alice",)) as copy:
            show(list(copy.rows()))
    conn.commit()

    def bad():
        with conn.cursor() as cur, cur.copy("copy accounts from stdin") as copy:
            copy.write("f-1\t1\nf-2\tx\n")

    def own():
        with conn.cursor() as cur, cur.copy("copy accounts from stdin") as copy:
            copy.write("f-1\t1\n")
            raise ValueError("ours")

    for function in (bad, own):
        fails(function)
        conn.rollback()


@step("cancel", recover)
def _():
    timer = after(0.3, conn.cancel)
    fails(query, "select pg_sleep(30)")
    timer.join()
    conn.rollback()
    show(query("select 1"))
    conn.rollback()

    async def asynchronous():
        async with await psycopg.AsyncConnection.connect("") as aconn:
            task = asyncio.ensure_future(aconn.execute("select pg_sleep(%s)", (30,)))
            await asyncio.sleep(0.3)
            aconn.cancel()
            try:
                await task
            except psycopg.Error as error:
                report(error)
            await aconn.rollback()
            show(await (await aconn.execute("select 2")).fetchall())
    asyncio.run(asynchronous())


@step("errors", recover)
def _():
    conn.add_notice_handler(lambda diag: show("notice:", diag.severity, diag.sqlstate, diag.message_primary))
    for statement in ("selec 1", "select * from no_such_table", "select 1/0", "insert into accounts values ('x', null)",
                      "insert into accounts values ('alice', 1)", "select no_such_column from accounts where id = 'alice'",
                      "insert into accounts values ('x', 'y')", "select 'a'::int", "update accounts set balance = -1 where id = 'alice'"):
        try:
            query(statement)
        except psycopg.Error as error:
            report(error)
            show({name: getattr(error.diag, name) for name in sorted(dir(error.diag)) if not name.startswith(("_", "source_"))})
        conn.rollback()
    conn.autocommit = True
    for statement in ("begin", "begin", "commit", "commit", "select 1; select 2"):
        show(conn.execute(statement).statusmessage)
    conn.autocommit = False


@step("reconnect")
def _():
    global conn
    query("set application_name = 'first'")
    query("set statement_timeout = '10s'")
    conn.commit()
    conn.close()
    conn = psycopg.connect("", application_name="second", options="-c statement_timeout=5000")
    show(query("show application_name"), query("show statement_timeout"), conn.info.parameter_status("application_name"))
    show(balances())
    conn.close()
