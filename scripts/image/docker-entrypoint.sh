#!/bin/bash
# Entry point of the local Postgres image. It behaves like the official image's where tests and docker-compose.yml can tell:
# the POSTGRES_* variables and their _FILE forms, /docker-entrypoint-initdb.d, `-c name=value` as arguments, root dropped,
# and a first server that listens on its socket only, so that nobody connects before the initialisation is done.
set -euo pipefail

# file_env NAME [DEFAULT]: the variable's value, or the content of the file that NAME_FILE names; both is a mistake.
file_env() {
    local name=$1 file_name=$1_FILE value
    if [ -n "${!name:-}" ] && [ -n "${!file_name:-}" ]; then
        echo "error: both $name and $file_name are set" >&2
        exit 1
    fi
    value=${!name:-${2:-}}
    if [ -n "${!file_name:-}" ]; then value=$(<"${!file_name}"); fi
    export "$name=$value"
    unset "$file_name"
}

run_init_files() {
    local file
    for file in /docker-entrypoint-initdb.d/*; do
        [ -e "$file" ] || continue
        echo "$0: running $file"
        case $file in
        *.sh) if [ -x "$file" ]; then "$file"; else
            # shellcheck disable=SC1090
            source "$file"
        fi ;;
        *.sql) psql_local --dbname "$POSTGRES_DB" --file "$file" ;;
        *.sql.gz) gzip -dc "$file" | psql_local --dbname "$POSTGRES_DB" ;;
        *) echo "$0: ignoring $file" ;;
        esac
    done
}

psql_local() { psql -v ON_ERROR_STOP=1 --no-psqlrc --no-password --username "$POSTGRES_USER" "$@"; }

initialise() {
    file_env POSTGRES_PASSWORD
    file_env POSTGRES_USER postgres
    file_env POSTGRES_DB "$POSTGRES_USER"
    file_env POSTGRES_INITDB_ARGS
    local method=${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}
    if [ -z "$POSTGRES_PASSWORD" ] && [ "$method" != trust ]; then
        echo "error: the database is new and POSTGRES_PASSWORD is empty (or set POSTGRES_HOST_AUTH_METHOD=trust)" >&2
        exit 1
    fi

    eval "initdb --username=\"\$POSTGRES_USER\" --pwfile=<(printf '%s\n' \"\$POSTGRES_PASSWORD\") --auth-local=trust --no-instructions $POSTGRES_INITDB_ARGS"
    printf '\nhost all all all %s\n' "$method" >>"$PGDATA/pg_hba.conf"

    PGUSER=$POSTGRES_USER pg_ctl --pgdata "$PGDATA" --wait --options "$(printf ' %q' "${@:2}" -c listen_addresses='' -p 5432)" start
    export PGPASSWORD=$POSTGRES_PASSWORD
    if [ "$POSTGRES_DB" != postgres ]; then
        # psql's :"name" quotes; it is only substituted in text read from a file, not in --command.
        echo 'CREATE DATABASE :"db";' | psql_local --dbname postgres --set db="$POSTGRES_DB"
    fi
    run_init_files
    unset PGPASSWORD
    pg_ctl --pgdata "$PGDATA" --mode fast --wait stop
    echo
    echo 'PostgreSQL init process complete; ready for start up.'
    echo
}

if [ "${1:0:1}" = - ]; then set -- postgres "$@"; fi
if [ "$1" != postgres ]; then exec "$@"; fi

if [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA" /var/run/postgresql
    chown postgres:postgres "$PGDATA" /var/run/postgresql
    chmod 3775 /var/run/postgresql
    find "$PGDATA" \! -user postgres -exec chown postgres:postgres '{}' +
    exec setpriv --reuid=postgres --regid=postgres --clear-groups --inh-caps=-all "$0" "$@"
fi

mkdir -p "$PGDATA"
chmod 0700 "$PGDATA"
if [ ! -s "$PGDATA/PG_VERSION" ]; then initialise "$@"; fi
exec "$@"
