"""asyncpg: its own protocol code, everything binary, statements prepared and cached, types looked up in the catalog."""
import asyncio
import io

import asyncpg

from common import *

show("driver:", asyncpg.__version__)


def show_error(error):
    report(error)
    fields = error.as_dict() if isinstance(error, asyncpg.PostgresError) else {}
    show({k: v for k, v in sorted(fields.items()) if not k.startswith("server_source") and v is not None})


async def section(name, function):
    show("==", name)
    conn = await asyncpg.connect()
    try:
        await function(conn)
    except Exception as error:
        show_error(error)
    finally:
        await conn.close(timeout=5)


async def fail(awaitable):
    try:
        await awaitable
    except Exception as error:
        show_error(error)
    else:
        show("no error")


async def balances(conn):
    return [await conn.fetchval("select balance from accounts where id = $1", who) for who in ("alice", "bob")]


async def connect(conn):
    show(conn.get_server_version(), conn.get_server_pid() > 0, conn.is_in_transaction())
    settings = conn.get_settings()
    for name in ("server_version", "server_encoding", "client_encoding", "is_superuser", "session_authorization", "DateStyle", "TimeZone",
                 "integer_datetimes", "standard_conforming_strings", "application_name", "in_hot_standby"):
        show(name, getattr(settings, name, None))
    show(await conn.fetchrow("select current_user, current_database(), 1::int2 as one, current_schemas(false)"))


async def parameters(conn):
    insert = "insert into types_demo (" + COLUMNS + ") values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"
    show(await conn.execute(insert, *row("t-1")), await conn.execute(insert, *nulls("t-2")), await conn.execute(insert, *row("t-3")))
    for key in ("t-1", "t-2", "t-3"):
        show(await conn.fetchrow("select " + COLUMNS + " from types_demo where id = $1", key))
    show(await conn.fetch("select $1::int, $2::text, $3::text[], $4::int, $5::interval, $6::point", 1, "x", ["a"], None,
                          datetime.timedelta(days=1), (1.5, 2)))
    await fail(conn.fetch("select balance from accounts where id = $1", 7))
    await fail(conn.fetch("select $1::int", "x"))
    statement = await conn.prepare("select " + COLUMNS + ", i + $2 from types_demo where id = $1")
    show([t.name for t in statement.get_parameters()], [(a.name, a.type.name, a.type.oid) for a in statement.get_attributes()])


async def prepared(conn):
    statement = await conn.prepare("update accounts set balance = balance + $1 where id = $2 returning id, balance")
    for n, key in enumerate(DRIVER_KEYS[:20]):
        show(await statement.fetchrow(n, key), statement.get_statusmsg())
    async with conn.transaction():
        show(await statement.fetch(1, "alice"), await statement.fetch(-1, "alice"))
    for n in range(110):  # more statements than the driver keeps
        await conn.fetchval("select balance + %d from accounts where id = $1" % n, "alice")


async def transfer(conn):
    async with conn.transaction():
        show(await conn.execute("update accounts set balance = balance - $1 where id = $2", 100, "alice"), conn.is_in_transaction())
        show(await conn.execute("update accounts set balance = balance + $1 where id = $2", 100, "bob"))
    show(await balances(conn), conn.is_in_transaction())


async def check(conn):
    async def overdraw():
        async with conn.transaction():
            await conn.execute("update accounts set balance = balance + $1 where id = $2", 5000, "bob")
            await fail(conn.execute("update accounts set balance = balance - $1 where id = $2", 5000, "alice"))
            await fail(conn.fetch("select 1"))
            raise ValueError("leave the block")
    await fail(overdraw())
    show(await balances(conn), conn.is_in_transaction())


async def savepoint(conn):
    async with conn.transaction():
        await conn.execute("update accounts set balance = balance - 1 where id = $1", "alice")
        try:
            async with conn.transaction():
                await conn.execute("insert into accounts values ($1, 1)", "bob")
        except asyncpg.UniqueViolationError as error:
            show_error(error)
        async with conn.transaction():
            await conn.execute("update accounts set balance = balance + 1 where id = $1", "bob")
    show(await balances(conn))
    async with conn.transaction(isolation="repeatable_read", readonly=True):
        show(await balances(conn))
        await fail(conn.execute("update accounts set balance = 0 where id = 'alice'"))


async def batch(conn):
    await conn.executemany("insert into accounts values ($1, $2)", [(k, n) for n, k in enumerate(KEYS)])
    await conn.executemany("update accounts set balance = balance + $1 where id = $2", [(n % 7, KEYS[n % 12]) for n in range(1000)])
    show(sorted(await conn.fetch("select id, balance from accounts where id = any($1)", KEYS)))
    # All of it or nothing: executemany is one implicit transaction.
    await fail(conn.executemany("update accounts set balance = balance - $1 where id = $2", [(1, "alice"), (1000000, "bob"), (1, "alice")]))
    show(await balances(conn))


async def cursor(conn):
    async with conn.transaction():
        total = 0
        async for record in conn.cursor("select quantity from orders where customer = $1 order by order_id", "carol", prefetch=10):
            total += record["quantity"]
        show(total)
        cur = await conn.cursor("select quantity from orders where customer = $1 order by order_id", "carol")
        show(await cur.fetch(7), await cur.fetchrow(), await cur.forward(3), await cur.fetch(2))
        show(sorted([r[0] async for r in conn.cursor("select id from accounts where id like 'd-%'", prefetch=7)]))
        # A portal that is not at its end, and other statements in between.
        async for record in conn.cursor("select id from accounts where id >= 'd-3' and id < 'd-4'", prefetch=3):
            await conn.execute("update accounts set balance = balance + 1 where id = $1", record["id"])


async def copy(conn):
    show(await conn.copy_records_to_table("accounts", records=[("c-%d" % n, n) for n in range(10)], columns=["id", "balance"]))
    show(await conn.copy_to_table("accounts", source=io.BytesIO(b"e-1,1\ne-2,2\n"), format="csv"))
    out = io.BytesIO()
    show(await conn.copy_from_query("select quantity, sku from orders where customer = $1 order by order_id limit 5", "carol", output=out))
    show(out.getvalue())
    out = io.BytesIO()
    show(await conn.copy_from_table("accounts", output=out))
    show(sorted(out.getvalue().split(b"\n")))
    await fail(conn.copy_to_table("accounts", source=io.BytesIO(b"f-1\t1\nf-2\tx\n")))
    show(await conn.fetchval("select 1"))


async def cancel(conn):
    task = asyncio.ensure_future(conn.fetch("select pg_sleep($1)", 30))
    await asyncio.sleep(0.3)
    task.cancel()  # asyncpg sends a CancelRequest
    try:
        await task
    except asyncio.CancelledError:
        show("cancelled")
    show(await conn.fetchval("select 1"))
    try:
        await conn.fetch("select pg_sleep(30)", timeout=0.3)
    except asyncio.TimeoutError:
        show("timeout")
    show(await conn.fetchval("select 2"))
    await conn.execute("set statement_timeout = '200ms'")
    await fail(conn.fetch("select pg_sleep(30)"))


async def errors(conn):
    conn.add_log_listener(lambda _, message: show("notice:", type(message).__name__, message.severity, message.sqlstate, message.message))
    for statement in ("selec 1", "select * from no_such_table", "select 1/0", "insert into accounts values ('x', null)",
                      "insert into accounts values ('alice', 1)", "select no_such_column from accounts where id = 'alice'",
                      "insert into accounts values ('x', 'y')", "select 'a'::int", "update accounts set balance = -1 where id = 'alice'",
                      "select $1::int + $3::int", "select 1; select 2", ""):
        await fail(conn.fetch(statement))
    for statement in ("begin", "begin", "commit", "commit", "select 1; select 2"):
        show(await conn.execute(statement))
    await asyncio.sleep(0)  # listeners are called by the loop


async def reconnect(conn):
    await conn.execute("set application_name = 'first'")
    await conn.execute("set statement_timeout = '10s'")
    await conn.reset()  # DISCARD's parts: advisory locks, CLOSE ALL, UNLISTEN, RESET ALL
    show(await conn.fetchval("show statement_timeout"))
    async with asyncpg.create_pool(min_size=2, max_size=3, server_settings={"application_name": "second"}) as pool:
        async def one(n):
            async with pool.acquire() as c, c.transaction():
                await c.execute("update accounts set balance = balance + 1 where id = $1", "d-%02d" % n)
                return await c.fetchval("show application_name")
        show(await asyncio.gather(*[one(n) for n in range(20)]))
    show(await balances(conn))


async def introspect(conn):
    await conn.set_type_codec("jsonb", encoder=str, decoder=lambda s: s, schema="pg_catalog")
    show(await conn.fetchval("select '{}'::jsonb"))
    # A type it does not know: looked up in the catalog, with jit off for that.
    show(await conn.fetchrow("select o from orders o where customer = 'carol' and quantity = 1"))
    show(await conn.fetch("select relname, relkind from pg_class where relnamespace = 'public'::regnamespace order by 1"))


async def main():
    for function in (connect, parameters, prepared, transfer, check, savepoint, batch, cursor, copy, cancel, errors, reconnect, introspect):
        await section(function.__name__, function)


asyncio.run(main())
