"""psycopg2: libpq, parameters put into the text by the driver, simple protocol."""
import io

import psycopg2
import psycopg2.errors
import psycopg2.extras

from common import *

show("driver:", psycopg2.__version__.split()[0], "libpq", psycopg2.extensions.libpq_version())
psycopg2.extras.register_uuid()
conn = psycopg2.connect("")


def recover():
    global conn
    if conn.closed:
        conn = psycopg2.connect("")
    conn.rollback()


def query(sql, args=None):
    with conn.cursor() as cur:
        cur.execute(sql, args)
        return cur.fetchall() if cur.description else (cur.statusmessage, cur.rowcount)


def balances():
    return [query("select balance from accounts where id = %s", (who,))[0][0] for who in ("alice", "bob")]


@step("connect", recover)
def _():
    show(conn.server_version, conn.protocol_version, conn.encoding, conn.get_transaction_status())
    for name in ("server_version", "server_encoding", "client_encoding", "is_superuser", "session_authorization", "DateStyle", "IntervalStyle",
                 "TimeZone", "integer_datetimes", "standard_conforming_strings", "application_name", "in_hot_standby", "default_transaction_read_only"):
        show(name, conn.get_parameter_status(name))
    show(query("select current_user, current_database(), 1, current_schemas(false)"))
    show(conn.info.host == conn.info.dsn_parameters["host"], conn.info.ssl_in_use, conn.info.needs_password)
    conn.rollback()


@step("parameters", recover)
def _():
    for value in (row("t-1"), nulls("t-2"), row("t-3")):
        show(query("insert into types_demo (" + COLUMNS + ") values (" + ", ".join(["%s"] * 13) + ")", value))
    conn.commit()
    for key in ("t-1", "t-2", "t-3"):
        with conn.cursor() as cur:
            cur.execute("select " + COLUMNS + " from types_demo where id = %s", (key,))
            show([tuple(d) for d in cur.description])
            show([bytes(v) if isinstance(v, memoryview) else v for v in cur.fetchone()])
    show(query("select %s, %s, %s::text[], %s", (1, "x", ["a"], None)))
    conn.commit()


@step("prepared", recover)
def _():
    query("prepare add_one (bigint, text) as update accounts set balance = balance + $1 where id = $2 returning id, balance")
    for n, key in enumerate(DRIVER_KEYS[:20]):
        show(query("execute add_one (%s, %s)", (n, key)))
    query("deallocate add_one")
    conn.commit()
    fails(query, "execute add_one (1, 'd-00')")
    conn.rollback()


@step("transfer", recover)
def _():
    show(query("update accounts set balance = balance - %s where id = %s", (100, "alice")), conn.get_transaction_status())
    show(query("update accounts set balance = balance + %s where id = %s", (100, "bob")))
    conn.commit()
    show(balances(), conn.get_transaction_status())
    conn.rollback()


@step("check", recover)
def _():
    query("update accounts set balance = balance + 5000 where id = 'bob'")
    fails(query, "update accounts set balance = balance - 5000 where id = 'alice'")
    show(conn.get_transaction_status())
    fails(query, "select 1")
    conn.commit()
    show(conn.get_transaction_status(), balances())
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
    with conn.cursor() as cur:
        cur.executemany("insert into accounts values (%s, %s)", [(k, n) for n, k in enumerate(KEYS)])
        show(cur.rowcount)
        psycopg2.extras.execute_batch(cur, "update accounts set balance = balance + %s where id = %s", [(n, k) for n, k in enumerate(KEYS)])
        psycopg2.extras.execute_values(cur, "insert into accounts (id, balance) values %s", [("v-%d" % n, n) for n in range(20)])
        show(cur.statusmessage)
        cur.execute("select id, balance from accounts where id = any(%s)", (KEYS,))
        show(sorted(cur.fetchall()))
    conn.commit()


@step("cursor", recover)
def _():
    with conn.cursor("some") as cur:
        cur.itersize = 10
        cur.execute("select order_id, quantity, amount from orders where customer = %s order by order_id", ("carol",))
        show(sum(r[1] for r in cur), cur.rowcount)
    with conn.cursor("everybody") as cur:  # of all nodes
        cur.itersize = 7
        cur.execute("""select id from accounts where id >= 'd-' and id < 'e' order by id collate "C" desc""")
        show(cur.fetchone())
        cur.scroll(3)
        show([r[0] for r in cur])
    with conn.cursor("scrolling", scrollable=True) as cur:
        cur.execute("select quantity from orders where customer = 'carol' order by order_id")
        show(cur.fetchmany(7), cur.fetchone())
        cur.scroll(-3)
        show(cur.fetchmany(2))
    conn.commit()


@step("copy", recover)
def _():
    with conn.cursor() as cur:
        cur.copy_from(io.StringIO("".join("c-%d\t%d\n" % (n, n) for n in range(10))), "accounts", columns=("id", "balance"))
        show(cur.rowcount, cur.statusmessage)
        cur.copy_expert("copy accounts from stdin with (format csv)", io.StringIO("e-1,1\ne-2,2\n"))
        out = io.StringIO()
        cur.copy_expert("copy (select quantity, sku from orders where customer = 'carol' order by order_id limit 5) to stdout", out)
        show(repr(out.getvalue()), cur.rowcount)
        out = io.StringIO()
        cur.copy_to(out, "accounts")
        show(sorted(out.getvalue().split("\n")))
        conn.commit()
        fails(cur.copy_expert, "copy accounts from stdin", io.StringIO("f-1\t1\nf-2\tx\n"))
        conn.rollback()


@step("cancel", recover)
def _():
    timer = after(0.3, conn.cancel)
    fails(query, "select pg_sleep(30)")
    timer.join()
    conn.rollback()
    show(query("select 1"))
    conn.rollback()


@step("errors", recover)
def _():
    for statement in ("selec 1", "select * from no_such_table", "select 1/0", "insert into accounts values ('x', null)",
                      "insert into accounts values ('alice', 1)", "select no_such_column from accounts where id = 'alice'",
                      "insert into accounts values ('x', 'y')", "select 'a'::int", "update accounts set balance = -1 where id = 'alice'"):
        try:
            query(statement)
        except psycopg2.Error as error:
            report(error)
            show({name: getattr(error.diag, name) for name in sorted(dir(error.diag)) if not name.startswith(("_", "source_"))})
        conn.rollback()
    conn.autocommit = True
    query("begin")
    query("begin")
    query("commit")
    query("commit")
    conn.autocommit = False
    show(conn.notices)


@step("reconnect")
def _():
    global conn
    query("set application_name = 'first'")
    query("set statement_timeout = '10s'")
    conn.commit()
    conn.close()
    conn = psycopg2.connect("", application_name="second")
    show(query("show application_name"), query("show statement_timeout"), conn.get_parameter_status("application_name"))
    show(balances())
    conn.close()
