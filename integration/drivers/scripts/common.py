"""What the Python scripts share: the data, and how a section is printed."""
import datetime
import decimal
import os
import re
import sys
import threading
import uuid

UUID = uuid.UUID("0b7e3f5c-4c8e-4d3b-9a6e-1f2d3c4b5a69")
NUMERIC = decimal.Decimal("12345678901234567890.000123456789")
MOMENT = datetime.datetime(2024, 2, 29, 23, 59, 58, 123456, tzinfo=datetime.timezone.utc)
TEXT = "naïve € 😀 'quoted' \\ back\nline\ttab %s $1 :x ?"
COLUMNS = "id, i, b, t, u, n, ts, f, d, y, j, a, ta"
KEYS = ["k-%02d" % n for n in range(12)]  # on both nodes
DRIVER_KEYS = ["d-%02d" % n for n in range(40)]


def row(key):
    """One value of every type; json as text."""
    return [key, -2147483648, 9223372036854775807, TEXT, UUID, NUMERIC, MOMENT, True, 0.1, bytes(range(256)),
            '{"a": [1, null, "ü"]}', [1, None, 3], ["x", None, 'a "b", {c} \\']]


def nulls(key):
    return [key] + [None] * 12


def show(*values):
    print(*values, flush=True)


def sqlstate(error):
    for name in ("sqlstate", "pgcode"):
        if getattr(error, name, None):
            return getattr(error, name)
    for source in (getattr(error, "orig", None), *error.args):
        if isinstance(source, BaseException):
            found = sqlstate(source)
            if found:
                return found
        if isinstance(source, dict) and "C" in source:  # pg8000
            return source["C"]
        if isinstance(source, str) and re.fullmatch("[0-9A-Z]{5}", source):  # pyodbc
            return source
    return None


def report(error):
    show("error:", type(error).__name__, sqlstate(error), str(error).strip())


def step(name, recover=None):
    """Runs the function as a section: an error is printed, and the next section begins outside a transaction."""
    def decorate(function):
        show("==", name)
        try:
            function()
        except Exception as error:
            report(error)
            if recover:
                recover()
        return function
    return decorate


def fails(function, *args, **kwargs):
    """Prints the error that must come, or that none came."""
    try:
        function(*args, **kwargs)
    except Exception as error:
        report(error)
    else:
        show("no error")


def after(seconds, function):
    timer = threading.Timer(seconds, function)
    timer.daemon = True
    timer.start()
    return timer
