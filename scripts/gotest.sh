#!/usr/bin/env bash
# `go test` whose success means that tests ran. go test alone exits 0 for packages without tests and for a -run that matches nothing,
# and then green would mean nothing.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

log=$(mktemp /tmp/pgpact-test.XXXXXX)
trap 'rm -f "$log"' EXIT
go test "$@" 2>&1 | tee "$log"

ran=$(grep -E '^ok[[:space:]]' "$log" | grep -cvE '\[no test' || true)
[ "$ran" -gt 0 ] || die "go test $* ran no test"
say "$ran packages passed"
