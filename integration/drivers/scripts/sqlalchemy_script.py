"""SQLAlchemy over psycopg2: engine, ORM session, reflection."""
import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.dialects import postgresql as pg

from common import *

show("driver:", sa.__version__, "over psycopg2")
url = sa.engine.URL.create("postgresql+psycopg2", os.environ["PGUSER"], os.environ["PGPASSWORD"], os.environ["PGHOST"],
                           int(os.environ["PGPORT"]), os.environ["PGDATABASE"])
engine = sa.create_engine(url, future=True)
Base = orm.declarative_base()


class Account(Base):
    __tablename__ = "accounts"
    id = sa.Column(sa.Text, primary_key=True)
    balance = sa.Column(sa.BigInteger, nullable=False)


class Types(Base):
    __tablename__ = "types_demo"
    id = sa.Column(sa.Text, primary_key=True)
    i = sa.Column(sa.Integer)
    b = sa.Column(sa.BigInteger)
    t = sa.Column(sa.Text)
    u = sa.Column(pg.UUID(as_uuid=True))
    n = sa.Column(sa.Numeric)
    ts = sa.Column(sa.DateTime(timezone=True))
    f = sa.Column(sa.Boolean)
    d = sa.Column(sa.Float)
    y = sa.Column(sa.LargeBinary)
    j = sa.Column(pg.JSONB)
    a = sa.Column(pg.ARRAY(sa.Integer))
    ta = sa.Column(pg.ARRAY(sa.Text))


def balances():
    with engine.connect() as conn:
        return [conn.execute(sa.select(Account.balance).where(Account.id == who)).scalar_one() for who in ("alice", "bob")]


@step("connect")
def _():
    with engine.connect() as conn:
        show(conn.execute(sa.text("select current_user, current_database(), 1")).all())
        show(conn.dialect.server_version_info, conn.dialect.default_schema_name, conn.get_isolation_level())


@step("parameters")
def _():
    names = COLUMNS.split(", ")
    with orm.Session(engine) as session:
        for value in (row("t-1"), nulls("t-2"), row("t-3")):
            fields = dict(zip(names, value))
            fields["j"] = fields["j"] and {"a": [1, None, "ü"]}
            session.add(Types(**fields))
            session.flush()
        session.commit()
        for key in ("t-1", "t-2", "t-3"):
            found = session.get(Types, key)
            show([getattr(found, name) for name in names])


@step("prepared")
def _():
    statement = sa.update(Account).where(Account.id == sa.bindparam("key")).values(balance=Account.balance + sa.bindparam("more")).returning(Account.id, Account.balance)
    with engine.begin() as conn:
        for n, key in enumerate(DRIVER_KEYS[:20]):
            show(conn.execute(statement, {"key": key, "more": n}).all())


@step("transfer")
def _():
    with orm.Session(engine) as session:
        alice = session.get(Account, "alice", with_for_update=True)
        bob = session.get(Account, "bob", with_for_update=True)
        alice.balance -= 100
        bob.balance += 100
        session.commit()
    show(balances())


@step("check")
def _():
    with orm.Session(engine) as session:
        session.get(Account, "bob").balance += 5000
        session.flush()
        session.get(Account, "alice").balance -= 5000
        fails(session.commit)
        fails(session.get, Account, "bob")
        session.rollback()
        show(session.get(Account, "bob").balance)
    show(balances())


@step("savepoint")
def _():
    with orm.Session(engine) as session:
        session.get(Account, "alice").balance -= 1
        session.flush()
        try:
            with session.begin_nested():
                session.execute(sa.insert(Account).values(id="bob", balance=1))
        except sa.exc.IntegrityError as error:
            report(error)
        session.get(Account, "bob").balance += 1
        session.commit()
    show(balances())


@step("batch")
def _():
    with engine.begin() as conn:
        conn.execute(sa.insert(Account), [{"id": k, "balance": n} for n, k in enumerate(KEYS)])
        show(sorted(tuple(r) for r in conn.execute(sa.select(Account.id, Account.balance).where(Account.id.in_(KEYS)))))

    with orm.Session(engine) as session:
        session.add_all([Account(id="s-%02d" % n, balance=n) for n in range(12)])
        session.commit()
        for account in session.scalars(sa.select(Account).where(Account.id.in_(["s-%02d" % n for n in range(12)]))):
            account.balance += 1
        session.commit()
        session.delete(session.get(Account, "s-03"))
        session.commit()
        show(session.get(Account, "s-03"), session.get(Account, "s-04").balance)


@step("cursor")
def _():
    with engine.connect().execution_options(stream_results=True, max_row_buffer=10) as conn:
        result = conn.execute(sa.text("select quantity from orders where customer = :c order by order_id"), {"c": "carol"})
        show(result.fetchmany(5), sum(r[0] for r in result))


@step("errors")
def _():
    for statement in ("selec 1", "select * from no_such_table", "select 1/0", "insert into accounts values ('x', null)",
                      "insert into accounts values ('alice', 1)"):
        with engine.connect() as conn:
            fails(conn.execute, sa.text(statement))


@step("reconnect")
def _():
    with engine.connect() as conn:
        conn.execute(sa.text("set application_name = 'first'"))
        conn.commit()
    engine.dispose()
    with sa.create_engine(url, future=True, isolation_level="REPEATABLE READ", pool_pre_ping=True).connect() as conn:
        show(conn.execute(sa.text("show application_name")).scalar_one() != "first", conn.get_isolation_level(), balances())


@step("introspect")
def _():
    inspector = sa.inspect(engine)
    show(sorted(inspector.get_table_names(schema="public")), inspector.default_schema_name)
    for table in ("accounts", "orders", "types_demo"):
        show(table, inspector.get_columns(table, schema="public"))
        show(inspector.get_pk_constraint(table, schema="public"), inspector.get_indexes(table, schema="public"),
             inspector.get_check_constraints(table, schema="public"), inspector.get_foreign_keys(table, schema="public"),
             inspector.get_unique_constraints(table, schema="public"), inspector.get_table_comment(table, schema="public"))
    metadata = sa.MetaData()
    metadata.reflect(engine, only=["accounts"])
    show(repr(metadata.tables["accounts"]), inspector.has_table("accounts"), inspector.has_table("no_such_table"))
