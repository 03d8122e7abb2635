#!/usr/bin/env bash
# Lists the modules that a program was built of, with their checksums, as CycloneDX: scripts/sbom.sh BINARY OUTFILE. What the linker has left out
# is not in it. The same program gives the same list.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
[ $# -eq 2 ] || die "usage: sbom.sh BINARY OUTFILE"
tool=$(go_tool github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod v1.10.0)
version=$("$1" version | sed -E 's/^pgpact ([^ ]+) .*/\1/')
log=$(mktemp /tmp/pgpact-sbom.XXXXXX)
trap 'rm -f "$log"' EXIT
"$tool" bin -json -std -noserial -notimestamp -version "$version" -output "$2" "$1" 2>"$log" || { cat "$log" >&2; die "no list of $1"; }
