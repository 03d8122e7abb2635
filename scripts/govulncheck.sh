#!/usr/bin/env bash
# Looks for known vulnerabilities in what pgpact is built of, and calls: scripts/govulncheck.sh [ARGUMENTS OF GOVULNCHECK]. Exit status 3: some
# were found.
#
# The database is at vuln.go.dev; PGPACT_VULNDB names a mirror (also file:///...), which must answer. Where vuln.go.dev cannot be reached nothing
# can be said, and that is said, loudly, with exit status 0: a machine that cannot see the database can build and test all the same.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
tool=$(go_tool golang.org/x/vuln/cmd/govulncheck v1.9.0) || { say "SKIPPED: not looked for vulnerabilities"; exit 0; }
cd "$(repo_root)"
log=$(mktemp /tmp/pgpact-vuln.XXXXXX)
trap 'rm -f "$log"' EXIT
if [ $# -eq 0 ]; then set -- ./...; fi
status=0
"$tool" -db "${PGPACT_VULNDB:-https://vuln.go.dev}" "$@" >"$log" 2>&1 || status=$?
if [ "$status" -ne 0 ] && grep -q 'fetching vulnerabilities: Get' "$log"; then
    say "SKIPPED: not looked for vulnerabilities, ${PGPACT_VULNDB:-https://vuln.go.dev} cannot be reached from here"
    exit 0
fi
cat "$log"
exit "$status"
