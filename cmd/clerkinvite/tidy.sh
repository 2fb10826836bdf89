#!/usr/bin/env bash
# "go mod tidy -diff" for this module, with the library beside it in the place of the released one: go.mod must hold no replace
# directive (go install refuses one), and the release that it requires need not be there yet. Prints what tidy would change and
# fails if that is anything. The library's own lines in go.sum are left out: what they are is known after the release.
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
	echo "go.mod has a replace directive: go install …@latest would refuse it"
	exit 1
fi
go mod edit -replace "$library=$(cd ../.. && pwd)" "$copy/go.mod"
go mod tidy -modfile="$copy/go.mod" -diff
