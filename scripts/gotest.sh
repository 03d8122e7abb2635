#!/usr/bin/env bash
# `go test` whose success means that tests ran. go test alone exits 0 for packages without tests and for a -run that matches nothing,
# and then green would mean nothing. What failed is said again at the end: the logs of servers before it are long.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

log=$(mktemp /tmp/pgpact-test.XXXXXX)
trap 'rm -f "$log"' EXIT

# what_failed prints the tests that failed and what each has said, without the logs of servers. With -v a test's words come before its
# result, without it behind.
what_failed() {
    awk '
        function words() { for (i = (n > 40 ? n - 40 : 0); i < n; i++) print said[i]; n = 0 }
        /^=== RUN +[^\/]*$/ { n = 0; verbose = 1 }
        /^ *--- FAIL/ { if (verbose) words(); print; failed = 1; next }
        /^ *--- (PASS|SKIP)/ { failed = 0; next }
        /^(panic:|WARNING: DATA RACE|FAIL)/ { print; next }
        /^ +[a-z_]+\.go:[0-9]+: / { line = substr($0, 1, 300); if (verbose) said[n++] = line; else if (failed) print line }
    ' "$1"
}

if ! go test "$@" 2>&1 | tee "$log"; then
    printf '\n=== What failed\n'
    what_failed "$log" | tail -n 120
    exit 1
fi

ran=$(grep -E '^ok[[:space:]]' "$log" | grep -cvE '\[no test' || true)
[ "$ran" -gt 0 ] || die "go test $* ran no test"
say "$ran packages passed"
