#!/usr/bin/env bash
# Builds the program as it is released: scripts/build-release.sh OUTFILE. It runs on any Linux of its architecture, whatever C library is there (the
# parser is Postgres's own C, linked in statically, with Go's own resolver and user lookup), and the same source gives the same bytes: no paths, no
# times, no build id of a linker. The Dockerfile has the same flags; a test compares them.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
out=$(realpath -m "${1:?usage: build-release.sh OUTFILE}")
cd "$(repo_root)"
VERSION=${VERSION:-$(git describe --tags --always --dirty 2>/dev/null || echo unreleased)}
COMMIT=${COMMIT:-$(git rev-parse HEAD 2>/dev/null || echo unknown)}

CGO_ENABLED=1 go build -buildvcs=false -trimpath -tags netgo,osusergo \
    -ldflags "-s -w -X main.version=${VERSION} -X main.commit=${COMMIT} -linkmode external -extldflags -static" \
    -o "$out" ./cmd/pgpact
