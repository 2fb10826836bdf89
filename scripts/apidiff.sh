#!/usr/bin/env bash
# Prints the changes of the library's exported API since the last tag.
set -euo pipefail

cd "$(dirname "$0")/.."
# Tags of nested modules begin with their directory.
tag=$(git describe --tags --abbrev=0 --match 'v[0-9]*' 2>/dev/null) || {
	echo "There is no release to compare with yet (no tag v*)."
	exit 0
}
module=$(go list -m)
tmp=$(mktemp -d)
trap 'git worktree remove --force "$tmp/old" 2>/dev/null; rm -rf "$tmp"' EXIT
git worktree add --quiet --detach "$tmp/old" "$tag"
(cd "$tmp/old" && $APIDIFF -m -w "$tmp/old.export" "$module")
$APIDIFF -m -w "$tmp/new.export" "$module"
echo "Changes of the exported API since $tag:"
$APIDIFF -m "$tmp/old.export" "$tmp/new.export"
