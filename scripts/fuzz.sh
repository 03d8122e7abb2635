#!/usr/bin/env bash
# Runs every fuzz target of the main module for a while: scripts/fuzz.sh [10s]. go test -fuzz takes one target of one package at a time.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$(repo_root)"
time=${1:-10s}

targets=$(grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' . | grep -v '^./integration/' | sed -E 's|^(.*)/[^/]+:func (Fuzz.*)$|\1 \2|' | sort -u || true)
if [ -z "$targets" ]; then
    say "no fuzz targets"
    exit 0
fi
while read -r package target; do
    # -run matches nothing: the unit tests have run already. The seeds are part of fuzzing. Goroutines make coverage differ from run to run, so
    # inputs that seem interesting are not minimized for the usual minute each, in which nothing else happens.
    go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 20x "$package"
done <<<"$targets"
