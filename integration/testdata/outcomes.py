"""What DESIGN section 5 promises, asked from a Python driver: outcomes.py DRIVER URL FROM TO, with two accounts on different nodes.
Prints every contradiction; exits 0 when there is none."""

import importlib
import re
import sys

driver = importlib.import_module(sys.argv[1])
url, source, target = sys.argv[2:5]
failures = 0


def expect(what, got, pattern):
    global failures
    if not re.fullmatch(pattern, str(got)):
        print(f"{what}: {got!r}, want {pattern!r}")
        failures += 1


def connect():
    return driver.connect(url)


def ask(statement, *args):
    connection = connect()
    connection.autocommit = True
    try:
        cursor = connection.cursor()
        cursor.execute(statement, args or None)
        return cursor.fetchone()[0]
    finally:
        connection.close()


def refused(statement, *args):
    try:
        return ask(statement, *args)
    except driver.Error as error:
        return state(error)


def state(error):
    return getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)


def transfer(connection, key=None, amount=1):
    """Everything up to COMMIT; returns the id."""
    cursor = connection.cursor()
    cursor.execute("SHOW pgpact.transaction_id")
    transaction = cursor.fetchone()[0]
    if key is not None:
        cursor.execute("SET LOCAL pgpact.idempotency_key = '" + key.replace("'", "''") + "'")
    for account, delta in ((source, -amount), (target, amount)):
        cursor.execute("UPDATE accounts SET balance = balance + %s WHERE id = %s", (delta, account))
    return transaction


# Tracked by its id.
connection = connect()
transaction = transfer(connection)
expect("the id", transaction, r"\d+/\d+")
expect("before COMMIT", ask("SELECT pgpact.outcome(%s)", transaction), "in progress")
connection.commit()
expect("after COMMIT", ask("SELECT pgpact.outcome(%s)", transaction), "committed")
expect("as a literal", ask(f"SELECT pgpact.outcome('{transaction}')"), "committed")
transaction = transfer(connection)
connection.rollback()
expect("after ROLLBACK", ask("SELECT pgpact.outcome(%s)", transaction), "aborted")

# Tracked without writes.
cursor = connection.cursor()
cursor.execute("SHOW pgpact.transaction_id")
transaction = cursor.fetchone()[0]
cursor.execute("SELECT balance FROM accounts WHERE id = %s", (source,))
connection.commit()
expect("without writes", ask("SELECT pgpact.outcome(%s)", transaction), "committed")

# By a key that nobody can use twice.
key = f"python's key {sys.argv[1]} ☃"
expect("a key before", ask("SELECT pgpact.outcome_of_key(%s)", key), "not committed so far")
transaction = transfer(connection, key)
connection.commit()
expect("a key after", ask("SELECT pgpact.outcome_of_key(%s)", key), "committed " + transaction)
try:
    transfer(connection, key)
    expect("the key again", "accepted", "23505")
except driver.Error as error:
    expect("the key again", state(error), "23505")
    expect("the key again names the winner", transaction in str(error), "True")
connection.rollback()

# Two at once under one key, on different rows: one of them commits.
race = key + " race"
other = connect()
first, second = connection.cursor(), other.cursor()
for cursor, account in ((first, source), (second, target)):
    cursor.execute("SET LOCAL pgpact.idempotency_key = '" + race.replace("'", "''") + "'")
    cursor.execute("UPDATE accounts SET balance = balance + 0 WHERE id = %s", (account,))
connection.commit()
try:
    other.commit()
    expect("the loser's COMMIT", "accepted", "23505")
except driver.Error as error:
    expect("the loser's COMMIT", state(error), "23505")
expect("the winner", ask("SELECT pgpact.outcome_of_key(%s)", race), r"committed \d+/\d+")

# Never a guess.
expect("an unknown gateway's", refused("SELECT pgpact.outcome(%s)", "12345/1"), "42704")
expect("no id at all", refused("SELECT pgpact.outcome(%s)", "yesterday's"), "22P02")
expect("outside of a block", refused("SHOW pgpact.transaction_id"), "25P01")
sys.exit(1 if failures else 0)
