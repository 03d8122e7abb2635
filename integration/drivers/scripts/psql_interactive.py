"""psql on a terminal: prompts that show the state of the transaction, tab completion, and Ctrl-C."""
import os
import pty
import re
import select
import sys
import tempfile
import time

PROMPT = re.compile(rb"pgpact([=!^-])([*!?]?)> $")


def read_until(fd, done, bound=20):
    """What comes until done(text) is true; a terminal gives it in pieces."""
    text, deadline = b"", time.monotonic() + bound
    while not done(text):
        if not select.select([fd], [], [], max(0, deadline - time.monotonic()))[0]:
            return text + b"\n(nothing more came)\n"
        try:
            piece = os.read(fd, 65536)
        except OSError:  # psql has ended
            return text
        if not piece:
            return text
        text += piece
    return text


inputrc = tempfile.NamedTemporaryFile("w", suffix=".inputrc")
inputrc.write("set enable-bracketed-paste off\nset bell-style none\nset horizontal-scroll-mode off\nset completion-query-items 0\nset page-completions off\n")
inputrc.flush()
child, terminal = pty.fork()
if child == 0:
    os.environ.update(TERM="dumb", COLUMNS="200", LINES="1000", INPUTRC=inputrc.name, PAGER="cat", PSQL_HISTORY="/dev/null")
    os.execvp("psql", ["psql", "-X", "--no-password", "-v", "PROMPT1=%/%R%x%# ", "-v", "VERBOSITY=terse"])
text = read_until(terminal, PROMPT.search)
for line in ("begin;", "update accounts set balance = balance where id = 'alice';", "update accounts set balance = balance where id = 'bob';", "selec;", "select 1;",
             "commit;", "select 1;", "\\set AUTOCOMMIT off", "select balance from accounts where id = 'd-39';", "rollback;", "\\set AUTOCOMMIT on"):
    os.write(terminal, line.encode() + b"\n")
    text += read_until(terminal, PROMPT.search)
for start in ("select balance from acc", "\\dt typ", "update accounts set bal", "set statement_timeo"):
    os.write(terminal, start.encode() + b"\t")
    # Completion asks the server and then writes on; each of these has one answer, which ends in a blank.
    text += read_until(terminal, lambda t: t.endswith(b" ") and len(t) > len(start))
    os.write(terminal, b"\x03")  # and throw the line away
    text += read_until(terminal, lambda t: b"\n" in t and PROMPT.search(t))
os.write(terminal, b"select pg_sleep(30);\n")
text += read_until(terminal, lambda t: t.endswith(b"\n"))
time.sleep(0.5)  # the statement has to be there before it can be cancelled
os.write(terminal, b"\x03")
text += read_until(terminal, PROMPT.search)
os.write(terminal, b"\\q\n")
text += read_until(terminal, lambda t: False, 5)
os.waitpid(child, 0)
sys.stdout.write(text.decode("utf-8", "replace").replace("\r", "").replace("\x08", "<"))
