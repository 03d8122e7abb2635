#!/usr/bin/env python3
"""Transfer money from one account to another exactly once, whatever breaks, and
however often this is started: an example of a client of pgpact that retries
safely, with psycopg 3. See examples/README.md."""

import argparse
import contextlib
import random
import signal
import sys
import time

import psycopg
from psycopg import sql

NOT_DONE = 1  # exit status: certainly not committed
UNKNOWN = 3  # to be run again with the same key


class NotDone(Exception):
    """The transfer has failed for good."""


class Transfer:
    def __init__(self, url, key, source, target, amount):
        self.url, self.key, self.amount = url, key, amount
        self.source, self.target = source, target
        self.attempts = []  # ids of transactions whose COMMIT may have been sent

    def run(self, deadline):
        """Try until it is committed, by us or by an earlier run, or certainly is
        not (NotDone). Returns the id of the transaction that has committed."""
        while True:
            try:
                return self.once()
            except (psycopg.Error, NotDone) as error:
                print("attempt:", str(error).strip(), file=sys.stderr)
                if not worth_repeating(error):
                    try:
                        return self.settle(error)
                    except psycopg.Error as later:
                        error = later
                if time.monotonic() > deadline:
                    raise error
            # Not all clients that were cut off at once should come back at once.
            time.sleep(random.uniform(0.05, 0.25))

    def once(self):
        """One attempt, on a connection of its own: after an error it is not worth
        finding out whether the old one still works."""
        with within(15), contextlib.closing(connect(self.url)) as connection:
            cursor = connection.cursor()  # psycopg sends BEGIN with the first statement
            # Its name, with which its outcome can be asked for whatever happens to us.
            transaction = cursor.execute("SHOW pgpact.transaction_id").fetchone()[0]
            # SET takes no parameters, so the key is quoted here.
            cursor.execute(sql.SQL("SET LOCAL pgpact.idempotency_key = {}").format(sql.Literal(self.key)))
            # The lesser account first: two transfers in opposite directions must not
            # wait for each other on two nodes.
            for account, delta in sorted([(self.source, -self.amount), (self.target, self.amount)]):
                cursor.execute("UPDATE accounts SET balance = balance + %s WHERE id = %s", (delta, account))
                if cursor.rowcount != 1:
                    raise NotDone(f"there is no account {account!r}")
            self.attempts.append(transaction)  # from here on it may commit
            connection.commit()
            return transaction

    def settle(self, reason):
        """For an error that would come again. Committed, all the same, if a
        transaction bears the key; NotDone only if none of our attempts can commit
        any more; otherwise another error."""
        with within(15), contextlib.closing(connect(self.url)) as connection:
            connection.autocommit = True
            for attempt in self.attempts:
                outcome = connection.execute("SELECT pgpact.outcome(%s)", (attempt,)).fetchone()[0]
                if outcome == "in progress":
                    raise psycopg.OperationalError(f"attempt {attempt} is in progress")
            answer = connection.execute("SELECT pgpact.outcome_of_key(%s)", (self.key,)).fetchone()[0]
            if answer.startswith("committed "):
                return answer.removeprefix("committed ")
            raise NotDone(str(reason).strip())


@contextlib.contextmanager
def within(seconds):
    """Bound what runs in it: a gateway that hangs keeps its connections open and
    never answers."""

    def interrupt(*_):
        raise psycopg.OperationalError(f"no answer within {seconds} s")

    signal.signal(signal.SIGALRM, interrupt)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def connect(url):
    """Try one gateway after the other, beginning anywhere. libpq 16 can do that
    itself, with load_balance_hosts=random."""
    parts = psycopg.conninfo.conninfo_to_dict(url)
    hosts, ports = parts["host"].split(","), str(parts.get("port", 5432)).split(",")
    gateways = list(zip(hosts, ports * len(hosts) if len(ports) == 1 else ports))
    random.shuffle(gateways)
    parts["host"], parts["port"] = (",".join(column) for column in zip(*gateways))
    return psycopg.connect(**parts, connect_timeout=3)


def worth_repeating(error):
    """The attempt has failed for a reason that may be gone next time, or it is not
    known whether it has failed."""
    if isinstance(error, NotDone):
        return False
    state = error.sqlstate
    if state is None:  # the connection was lost, or never made
        return True
    # The other one won; a lock; too slow; and by classes: connection (08007:
    # outcome not known), resources, a gateway or node that stops.
    return state in ("40001", "40P01", "55P03", "57014") or state[:2] in ("08", "53", "57")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="postgresql://pgpact@127.0.0.1:6432/pgpact", help="gateways, as postgresql://USER@HOST:PORT,HOST:PORT/DATABASE")
    parser.add_argument("--key", required=True, help="the transfer's own name: only one transaction can commit under it")
    parser.add_argument("--from", dest="source", required=True, help="account to take from")
    parser.add_argument("--to", dest="target", required=True, help="account to give to")
    parser.add_argument("--amount", type=int, required=True)
    parser.add_argument("--timeout", type=float, default=60, help="give up after so many seconds")
    options = parser.parse_args()
    transfer = Transfer(options.url, options.key, options.source, options.target, options.amount)
    try:
        print("committed", transfer.run(time.monotonic() + options.timeout))
    except NotDone as reason:
        print("not done:", reason)
        sys.exit(NOT_DONE)
    except psycopg.Error as error:
        print("not known, run it again with the same key:", str(error).strip())
        sys.exit(UNKNOWN)


if __name__ == "__main__":
    main()
