#!/usr/bin/env bash
# Runs "go mod tidy -diff" for this module with the library of this repository, and fails if there is a difference. go.mod must not
# have a replace directive, because go install rejects it, and the required release may not exist yet. The library's lines in go.sum
# are ignored, because they are only known after the release.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

library=github.com/clerkinvite/clerkinvite
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp go.mod "$copy/go.mod"
touch go.sum
grep -v "^$library " go.sum >"$copy/go.sum" || true
export GOWORK=off
if grep -q '^replace' go.mod; then
	echo "go.mod has a replace directive, which go install …@latest rejects"
	exit 1
fi
go mod edit -replace "$library=$(cd ../.. && pwd)" "$copy/go.mod"
go mod tidy -modfile="$copy/go.mod" -diff
