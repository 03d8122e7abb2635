#!/usr/bin/env bash
# Installs the Debian packages that are missing, and only those. Running it again does nothing.
#
#   scripts/install-deps.sh demo    what `make demo` needs: Postgres server binaries and a C compiler (the SQL parser is Postgres's own C)
#   scripts/install-deps.sh test    the same, docker-compose where a docker engine runs without any compose, chromium and prometheus
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

purpose=${1:-test}
case $purpose in demo | test) ;; *) die "usage: install-deps.sh [demo|test]" ;; esac

packages=()
postgres_bindir >/dev/null || packages+=(postgresql)
# cgo compiles the parser; a compiler without the C library's headers is no compiler.
if ! echo '#include <stdlib.h>' | "${CC:-gcc}" -E - >/dev/null 2>&1; then packages+=(gcc libc6-dev); fi
bindir=$(postgres_bindir || true)
if [ -n "$bindir" ] && [ ! -x "$bindir/psql" ] && ! command -v psql >/dev/null; then packages+=(postgresql-client); fi
if [ "$purpose" = test ] && engine_answers && ! compose_command >/dev/null; then packages+=(docker-compose); fi
# The status page is looked at in a real browser; alert rules and the dashboard's queries are tried with Prometheus itself.
if [ "$purpose" = test ] && ! command -v chromium >/dev/null && ! command -v google-chrome >/dev/null; then packages+=(chromium fonts-dejavu-core); fi
if [ "$purpose" = test ] && ! command -v promtool >/dev/null; then packages+=(prometheus); fi

if [ ${#packages[@]} -eq 0 ]; then exit 0; fi

# Optional is what has a test that says loudly that it was skipped; everything else stops us.
required=()
for package in "${packages[@]}"; do
    case $package in docker-compose | chromium | fonts-dejavu-core | prometheus) ;; *) required+=("$package") ;; esac
done
give_up() {
    if [ ${#required[@]} -eq 0 ]; then say "$1; going on without ${packages[*]}"; exit 0; fi
    die "$1. Needed: ${required[*]} (Debian's names; with Homebrew: brew install postgresql@17)"
}

command -v apt-get >/dev/null || give_up "no apt-get on this machine"
if [ "$(id -u)" -eq 0 ]; then as_root=()
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then as_root=(sudo -n)
else give_up "neither root nor passwordless sudo, so nothing can be installed"; fi
apt() {
    ${as_root[@]+"${as_root[@]}"} env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=120 -o APT::Install-Recommends=false "$@"
}

# Debian's package would create and start a cluster on port 5432. We want binaries, not a server in somebody's way: a drop-in says so
# while we install, and is taken away again because the machine is not ours.
dropin=/etc/postgresql-common/createcluster.d/zz-pgpact-no-main.conf
remove_dropin() { ${as_root[@]+"${as_root[@]}"} rm -f "$dropin"; }
clusters_before=$(pg_lsclusters -h 2>/dev/null || true)
if printf '%s\n' "${packages[@]}" | grep -qx postgresql; then
    trap remove_dropin EXIT
    ${as_root[@]+"${as_root[@]}"} mkdir -p "$(dirname "$dropin")"
    echo 'create_main_cluster = false' | ${as_root[@]+"${as_root[@]}"} tee "$dropin" >/dev/null
fi

say "installing ${packages[*]}"
# An index that is there and fresh enough saves the update; one that is stale shows as a failed download.
if ! apt install -y "${packages[@]}" >/tmp/pgpact-apt.$$ 2>&1; then
    apt update >/tmp/pgpact-apt.$$ 2>&1 || { cat /tmp/pgpact-apt.$$ >&2; give_up "apt-get update failed"; }
    apt install -y "${packages[@]}" >/tmp/pgpact-apt.$$ 2>&1 || { cat /tmp/pgpact-apt.$$ >&2; give_up "apt-get install failed"; }
fi
rm -f /tmp/pgpact-apt.$$

# An older postgresql-common does not read drop-ins: a cluster that appeared through us is stopped again.
if command -v pg_lsclusters >/dev/null; then
    pg_lsclusters -h | while read -r version name _ status _; do
        case $status in online*) ;; *) continue ;; esac
        if ! printf '%s\n' "$clusters_before" | grep -qE "^$version +$name "; then
            say "stopping cluster $version/$name, which the installation started"
            ${as_root[@]+"${as_root[@]}"} pg_ctlcluster "$version" "$name" stop
        fi
    done
fi
if [ ${#required[@]} -gt 0 ]; then postgres_bindir >/dev/null || die "installed ${required[*]}, but still no Postgres server binaries are found"; fi
