#!/usr/bin/env bash
# Installs the Postgres drivers that integration/drivers runs, as Debian ships them: one apt-get call for what is missing. Running it again
# does nothing. It prints how long that took and how much room it takes.
#
# A machine that cannot install them is told so, and the tests of the drivers that are missing say loudly that they were skipped.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

wanted=(
    python3 python3-psycopg2 python3-psycopg python3-asyncpg python3-pg8000 python3-sqlalchemy
    libpostgresql-jdbc-java ruby ruby-pg perl libdbd-pg-perl php-cli php-pgsql
    odbc-postgresql unixodbc python3-pyodbc
)
if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    say "SKIPPED: no apt-get on this machine; the drivers must be installed by hand: ${wanted[*]}"
    exit 0
fi
installed() { dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q 'ok installed$'; }
packages=()
for package in "${wanted[@]}"; do installed "$package" || packages+=("$package"); done
# Java runs from source, which takes the compiler: any JDK from 17 on will do, and the default one is 250 MB.
if ! javac -version 2>/dev/null | grep -qE '^javac (1[7-9]|[2-9][0-9])'; then packages+=(default-jdk-headless); fi
# psql and pgbench: Debian ships pgbench with the server.
postgres_bindir >/dev/null || packages+=(postgresql)
if [ ${#packages[@]} -eq 0 ]; then exit 0; fi

if [ "$(id -u)" -eq 0 ]; then as_root=()
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then as_root=(sudo -n)
else
    say "SKIPPED: neither root nor passwordless sudo, so these drivers cannot be installed: ${packages[*]}"
    exit 0
fi
log=$(mktemp /tmp/pgpact-apt.XXXXXX)
trap 'rm -f "$log"' EXIT
apt() {
    ${as_root[@]+"${as_root[@]}"} env DEBIAN_FRONTEND=noninteractive \
        apt-get -q -o DPkg::Lock::Timeout=120 -o APT::Install-Recommends=false "$@" >"$log" 2>&1
}

say "installing ${packages[*]}"
began=$SECONDS
# An index that is there and fresh enough saves the update; one that is stale shows as a failed download.
if ! apt install -y "${packages[@]}"; then
    apt update || { cat "$log" >&2; die "apt-get update failed"; }
    apt install -y "${packages[@]}" || { cat "$log" >&2; die "apt-get install failed"; }
fi
size=$(grep -E '^After this operation' "$log" | sed -E 's/^After this operation, (.*) of additional.*/\1/' || true)
say "installed ${#packages[@]} packages and what they need in $((SECONDS - began)) s, ${size:-unknown size} of disk space"
