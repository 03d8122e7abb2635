# Packs files of this machine into a tar that can be the whole content of an image; source it after lib.sh.
# This is how tests get containers on a machine that has a docker engine but no registry.
# shellcheck shell=bash

# with_libraries FILE...: prints, one per line, the files, everything `ldd` names for them, and what symlinks among these point at.
# Paths are printed with their directory resolved: on a merged-usr system /lib/x is /usr/lib/x, and a tar must not hold both.
with_libraries() {
    {
        printf '%s\n' "$@"
        # ldd reports a script or a static binary on stderr and exits 1: not an error here.
        { ldd "$@" 2>/dev/null || true; } | grep -oE '/[^ ]+' | grep -v ':$' || true
    } | sort -u | while read -r file; do
        [ -e "$file" ] || continue
        while :; do
            file=$(cd "$(dirname "$file")" && pwd -P)/$(basename "$file")
            printf '%s\n' "$file"
            [ -L "$file" ] || break
            local target
            target=$(readlink "$file")
            case $target in /*) file=$target ;; *) file=$(dirname "$file")/$target ;; esac
        done
    done | sort -u
}

# merged_usr STAGE: the top-level symlinks that a merged-usr machine has, so that /bin/sh and /lib64/ld-linux are found.
merged_usr() {
    local dir
    for dir in bin sbin lib lib64; do
        if [ -L "/$dir" ]; then
            mkdir -p "$1/usr/$dir"
            ln -sfn "usr/$dir" "$1/$dir"
        fi
    done
}

# image_is_current TAG HASH: true when an image with this tag was made from the same content.
image_is_current() {
    [ "$(docker image inspect --format '{{index .Config.Labels "org.pgpact.content"}}' "$1" 2>/dev/null || true)" = "$2" ]
}

# docker_build DIR TAG HASH: the classic builder, because buildx may be missing.
docker_build() {
    local output before
    before=$(docker image inspect --format '{{.Id}}' "$2" 2>/dev/null || true)
    output=$(DOCKER_BUILDKIT=0 docker build --quiet --force-rm --label "org.pgpact.content=$3" --label org.pgpact.local=true --tag "$2" "$1" 2>&1) ||
        die "docker build failed: $output"
    # What had this tag before is of no use to anybody now; a container that still runs on it keeps it.
    if [ -n "$before" ]; then docker image rm "$before" >/dev/null 2>&1 || true; fi
}
