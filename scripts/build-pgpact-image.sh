#!/usr/bin/env bash
# Builds pgpact/pgpact:local FROM scratch out of bin/pgpact and the libraries it loads. The image to ship is made by the Dockerfile, which
# needs a registry for its base images; this one is for machines that have none, and holds the same program in the same places.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/image/rootfs.sh
source "$(dirname "$0")/image/rootfs.sh"

engine_answers || die "no docker engine answers"
binary=${1:-$(repo_root)/bin/pgpact}
[ -x "$binary" ] || die "$binary is missing; run make build"
tag=${PGPACT_LOCAL_IMAGE:-pgpact/pgpact:local}
content=$(cat "$0" "$(dirname "$0")/image/rootfs.sh" "$binary" | sha256sum | cut -c1-32)
if image_is_current "$tag" "$content"; then echo "$tag"; exit 0; fi

say "building $tag from $binary"
work=$(mktemp -d /tmp/pgpact-image.XXXXXX)
trap 'rm -rf "$work"' EXIT
stage=$work/stage
merged_usr "$stage"
mkdir -p "$stage"/{etc/pgpact,tmp,usr/local/bin}
chmod 1777 "$stage/tmp"
printf 'root:x:0:0:root:/root:/bin/sh\npgpact:x:10001:10001:pgpact:/:/bin/bash\n' >"$stage/etc/passwd"
printf 'root:x:0:\npgpact:x:10001:\n' >"$stage/etc/group"
printf 'passwd: files\ngroup: files\nhosts: files dns\n' >"$stage/etc/nsswitch.conf"
install -m 0755 "$binary" "$stage/usr/local/bin/pgpact"
# bash is for the health check of docker-compose.yml (/dev/tcp); Debian's slim image, the Dockerfile's base, has it too.
{
    with_libraries "$binary" "$(type -P bash)" "$(type -P sh)"
    find /usr/lib -maxdepth 2 -name 'libnss_files*' -o -maxdepth 2 -name 'libnss_dns*'
} | grep -vFx "$(realpath "$binary")" | sort -u | sed 's|^/||' >"$work/files"
mkdir "$work/context"
tar -C / --no-recursion -cf "$work/context/rootfs.tar" -T "$work/files"
tar -C "$stage" --owner=0 --group=0 --numeric-owner -rf "$work/context/rootfs.tar" .
cat >"$work/context/Dockerfile" <<'DOCKERFILE'
FROM scratch
ADD rootfs.tar /
ENV PATH=/usr/local/bin:/usr/bin:/bin
USER 10001:10001
EXPOSE 6432 6480
ENTRYPOINT ["pgpact"]
CMD ["serve", "--config", "/etc/pgpact/pgpact.yaml"]
DOCKERFILE
docker_build "$work/context" "$tag" "$content"
echo "$tag"
