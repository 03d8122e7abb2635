#!/usr/bin/env bash
# Builds pgpact/postgres:local-<major>: a Postgres image FROM scratch out of this machine's own Debian Postgres, for tests on machines
# that have a docker engine but cannot pull. Prints the tag on stdout. An image of the same content is not built again.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/image/rootfs.sh
source "$(dirname "$0")/image/rootfs.sh"
here=$(cd "$(dirname "$0")" && pwd)

engine_answers || die "no docker engine answers"
bindir=$(postgres_bindir) || die "no Postgres server binaries; run scripts/install-deps.sh"
major=$("$bindir/postgres" --version | sed -E 's/^[^0-9]*([0-9]+).*/\1/')
tag=pgpact/postgres:local-$major
command -v dpkg-query >/dev/null && dpkg-query -S "$bindir/postgres" >/dev/null 2>&1 ||
    die "$bindir is not Debian's postgresql package; set PGPACT_TEST_POSTGRES_IMAGE to an image that can be had here"

packages=("postgresql-$major" "postgresql-client-$major")
# Everything in the image comes from these packages and from these scripts.
content=$({ dpkg-query -W "${packages[@]}" libc6 libssl3 bash coreutils util-linux tzdata 2>/dev/null || true
    cat "$here/build-postgres-image.sh" "$here/image/docker-entrypoint.sh" "$here/image/rootfs.sh"; } | sha256sum | cut -c1-32)
if image_is_current "$tag" "$content"; then echo "$tag"; exit 0; fi

say "building $tag from the machine's own packages"
work=$(mktemp -d /tmp/pgpact-image.XXXXXX)
trap 'rm -rf "$work"' EXIT
stage=$work/stage
share=/usr/share/postgresql/$major

mapfile -t server_files < <(dpkg -L "${packages[@]}" | grep -E '^/usr/(lib|share)/postgresql/' |
    grep -vE 'llvmjit|/bitcode/|/pgxs/|/man/|\.sample$' | sort -u | while read -r f; do if [ -f "$f" ] || [ -L "$f" ]; then echo "$f"; fi; done)

# initdb runs /bin/sh and locale; testcontainers' port check runs awk; the entry point and init scripts use the rest.
tools=()
for tool in sh bash awk cat chmod chown cp cut date dirname basename echo env expr find grep gzip head id kill ln locale ls mkdir \
    mktemp mv od printf ps readlink rm rmdir sed seq setpriv sleep sort stat tail tar test timeout touch tr uname wc whoami xargs; do
    path=$(type -P "$tool") && tools+=("$path") || say "no $tool on this machine, left out"
done

elf=()
for f in "${server_files[@]}"; do case $f in */bin/* | *.so) elf+=("$f") ;; esac; done
{
    printf '%s\n' "${server_files[@]}"
    with_libraries "${tools[@]}" "${elf[@]}"
    # Name lookups load these at run time, where ldd does not see them.
    find /usr/lib -maxdepth 2 -name 'libnss_files*' -o -maxdepth 2 -name 'libnss_dns*'
    find /usr/lib/locale/C.utf8 /usr/share/zoneinfo
    # awk is a chain of alternatives: the links inside /etc belong to it.
    find -L /etc/alternatives -maxdepth 1 -name awk
} | sort -u | sed 's|^/||' >"$work/files"

merged_usr "$stage"
mkdir -p "$stage"/{etc,root,tmp,run/postgresql,var/lib/postgresql/data,docker-entrypoint-initdb.d,usr/local/bin,"$share"}
ln -sfn /run "$stage/var/run"
# Without it initdb compares every zone file with the clock: 2.5 s on a slow layered file system.
ln -sfn /usr/share/zoneinfo/Etc/UTC "$stage/etc/localtime"
chmod 1777 "$stage/tmp"
printf 'root:x:0:0:root:/root:/bin/sh\npostgres:x:999:999:PostgreSQL:/var/lib/postgresql:/bin/bash\nnobody:x:65534:65534::/:/bin/sh\n' >"$stage/etc/passwd"
printf 'root:x:0:\npostgres:x:999:\nnogroup:x:65534:\n' >"$stage/etc/group"
printf 'passwd: files\ngroup: files\nhosts: files dns\n' >"$stage/etc/nsswitch.conf"
install -m 0755 "$here/image/docker-entrypoint.sh" "$stage/usr/local/bin/docker-entrypoint.sh"
cp "$share"/*.sample "$stage$share/"
# As in the official image: a container that listens on localhost only is of no use to anybody.
sed -i -E "s/^#?listen_addresses *=.*/listen_addresses = '*'/" "$stage$share/postgresql.conf.sample"
grep -q "^listen_addresses = '\*'" "$stage$share/postgresql.conf.sample" || die "listen_addresses could not be set in the sample"

tar -C / --no-recursion -cf "$work/rootfs.tar" -T "$work/files"
tar -C "$stage" --owner=0 --group=0 --numeric-owner -rf "$work/rootfs.tar" .
mkdir "$work/context"
mv "$work/rootfs.tar" "$work/context/"
cat >"$work/context/Dockerfile" <<DOCKERFILE
FROM scratch
ADD rootfs.tar /
ENV PATH=$bindir:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin PGDATA=/var/lib/postgresql/data PG_MAJOR=$major LANG=C.UTF-8
VOLUME /var/lib/postgresql/data
ENTRYPOINT ["docker-entrypoint.sh"]
STOPSIGNAL SIGINT
EXPOSE 5432
CMD ["postgres"]
DOCKERFILE
docker_build "$work/context" "$tag" "$content"
echo "$tag"
