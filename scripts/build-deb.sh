#!/usr/bin/env bash
# Builds pgpact_VERSION_ARCH.deb out of a binary and this tree's files, and prints its path: scripts/build-deb.sh BINARY OUTDIR [SBOM]
#
# dpkg-deb is all it needs. The same input gives the same bytes: times are those of SOURCE_DATE_EPOCH, or of the last commit.
# PGPACT_DEB_COMPRESSION=none is for tests, which are in more of a hurry than downloads.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
root=$(repo_root)

[ $# -ge 2 ] || die "usage: build-deb.sh BINARY OUTDIR [SBOM]"
binary=$(realpath "$1") outdir=$2 sbom=${3:-}
[ -x "$binary" ] || die "$binary is no program; scripts/build-release.sh makes one"
command -v dpkg-deb >/dev/null || die "no dpkg-deb on this machine"
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH
umask 022

# Debian's versions begin with a digit, and what git describe puts behind the tag is newer than the tag: v1.2.3-4-gabc is 1.2.3+4.gabc. What has
# no tag is older than everything that has.
described=$("$binary" version | sed -E 's/^pgpact ([^ ]+) .*/\1/')
version=$(sed -E 's/^v([0-9])/\1/; s/-([0-9]+)-g/+\1.g/; s/-dirty$/+dirty/; s/-/~/g' <<<"$described")
case $version in [0-9]*) ;; *) version="0~$version" ;; esac
arch=${PGPACT_DEB_ARCH:-$(dpkg --print-architecture)}

work=$(mktemp -d /tmp/pgpact-deb.XXXXXX)
trap 'rm -rf "$work"' EXIT
stage=$work/stage
share=$stage/usr/share
mkdir -p "$stage/DEBIAN" "$stage"/{usr/bin,etc/pgpact,usr/lib/systemd/system,usr/lib/sysusers.d} \
    "$share"/{man/man1,man/man5,doc/pgpact/examples,bash-completion/completions,zsh/vendor-completions,fish/vendor_completions.d}

install -m 0755 "$binary" "$stage/usr/bin/pgpact"
"$binary" config example >"$stage/etc/pgpact/pgpact.yaml"
install -m 0644 "$root/deploy/systemd/pgpact.service" "$stage/usr/lib/systemd/system/pgpact.service"
install -m 0644 "$root/deploy/systemd/pgpact.sysusers" "$stage/usr/lib/sysusers.d/pgpact.conf"

"$binary" man "$work/man"
cp "$work"/man/*.1 "$share/man/man1/"
cp "$work"/man/*.5 "$share/man/man5/"
"$binary" completion bash >"$share/bash-completion/completions/pgpact"
"$binary" completion zsh >"$share/zsh/vendor-completions/_pgpact"
"$binary" completion fish >"$share/fish/vendor_completions.d/pgpact.fish"

cp "$root/deploy/debian/copyright" "$share/doc/pgpact/copyright"
cp "$root/CHANGELOG.md" "$share/doc/pgpact/changelog"
cp "$root/deploy/prometheus/pgpact-alerts.yml" "$root/deploy/grafana/dashboards/pgpact.json" "$share/doc/pgpact/examples/"
if [ -n "$sbom" ]; then cp "$sbom" "$share/doc/pgpact/pgpact.cdx.json"; fi
gzip -9n "$share"/man/man?/* "$share/doc/pgpact/changelog"

# A program that is linked dynamically needs the C library it was linked against; one that is static needs nothing.
command -v readelf >/dev/null || die "no readelf on this machine (Debian: apt-get install binutils)"
depends=""
if readelf -l "$binary" 2>/dev/null | grep -q INTERP; then
    depends="Depends: libc6 (>= $(readelf -V "$binary" | grep -oE 'GLIBC_[0-9.]+' | sed 's/GLIBC_//' | sort -V | tail -1))"
fi
{
    cat <<CONTROL
Package: pgpact
Version: $version
Architecture: $arch
Maintainer: the authors of pgpact <pgpact@localhost>
Installed-Size: $(du -sk --apparent-size --exclude=DEBIAN "$stage" | cut -f1)
Section: database
Priority: optional
Homepage: https://github.com/pgpact/pgpact
CONTROL
    if [ -n "$depends" ]; then echo "$depends"; fi
    cat <<CONTROL
Description: transactions over several Postgres nodes, through one Postgres port
 pgpact is a gateway that speaks the Postgres protocol. Clients see one database;
 the rows live on several Postgres nodes. A transaction that writes on several of
 them commits on all or on none, whatever crashes.
CONTROL
} >"$stage/DEBIAN/control"
echo /etc/pgpact/pgpact.yaml >"$stage/DEBIAN/conffiles"
for script in postinst prerm postrm; do install -m 0755 "$root/deploy/debian/$script" "$stage/DEBIAN/$script"; done
(cd "$stage" && find usr -type f -print0 | sort -z | xargs -0 md5sum >DEBIAN/md5sums)

mkdir -p "$outdir"
find "$stage" -depth -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
dpkg-deb --root-owner-group -Z"${PGPACT_DEB_COMPRESSION:-xz}" --build "$stage" "$outdir/pgpact_${version}_${arch}.deb" >/dev/null
echo "$outdir/pgpact_${version}_${arch}.deb"
