# Shared by the scripts in this directory; source it, do not run it.
# shellcheck shell=bash

say() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; }
die() { say "$*"; exit 1; }

# go_tool prints the path of a program that is a Go module, installing it once: go_tool PACKAGE VERSION. It comes through the Go module proxy, so
# that a machine that can build pgpact can have it; where it cannot, the exit status is 75.
go_tool() {
    local name=${1##*/} bin
    bin=$(repo_root)/.cache/bin
    if [ ! -x "$bin/$name-$2" ]; then
        say "installing $1@$2"
        GOBIN=$bin/install-$name GOFLAGS= go install "$1@$2" >&2 || { say "$1@$2 cannot be had here"; return 75; }
        mv "$bin/install-$name/$name" "$bin/$name-$2"
    fi
    echo "$bin/$name-$2"
}

# repo_root prints the directory that holds the Makefile, wherever the script was called from.
repo_root() { (cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd); }

# postgres_bindir prints the directory of the newest Postgres *server* binaries, or fails. The order is the program's own
# (`pgpact demo` searches the same places), so that what the scripts install is what the program finds.
postgres_bindir() {
    local dir best="" best_major=0 major
    for dir in "${PGPACT_POSTGRES_BINDIR:-}" \
        "$(dirname "$(command -v postgres 2>/dev/null || echo /nonexistent/x)")" \
        "$(pg_config --bindir 2>/dev/null || true)" \
        /usr/lib/postgresql/*/bin /usr/pgsql-*/bin \
        /opt/homebrew/opt/postgresql@*/bin /usr/local/opt/postgresql@*/bin; do
        # pg_config comes with the client's headers too: only a directory with initdb *and* postgres is a server.
        [ -n "$dir" ] && [ -x "$dir/postgres" ] && [ -x "$dir/initdb" ] || continue
        # A link in /usr/local/bin leads to the real place, where psql and pgbench are too.
        dir=$(dirname "$(realpath "$dir/postgres")")
        major=$("$dir/postgres" --version | sed -E 's/^[^0-9]*([0-9]+).*/\1/')
        if [ "$major" -gt "$best_major" ]; then best=$dir best_major=$major; fi
    done
    [ -n "$best" ] && printf '%s\n' "$best"
}

# engine_answers says whether a docker engine can be used from here. The bound is for an engine that accepts and hangs.
engine_answers() {
    command -v docker >/dev/null 2>&1 || return 1
    if command -v timeout >/dev/null 2>&1; then
        timeout 20 docker version --format '{{.Server.Version}}' >/dev/null 2>&1
    else
        docker version --format '{{.Server.Version}}' >/dev/null 2>&1
    fi
}

# compose_command prints `docker compose` or `docker-compose`, whichever is there.
compose_command() {
    if docker compose version >/dev/null 2>&1; then echo "docker compose"
    elif command -v docker-compose >/dev/null 2>&1; then echo "docker-compose"
    else return 1; fi
}
