#!/usr/bin/env bash
# What has changed in the exported API of the library since the last tag.
set -euo pipefail

cd "$(dirname "$0")/.."
# Nested modules are tagged with their directory in front.
tag=$(git describe --tags --abbrev=0 --match 'v[0-9]*' 2>/dev/null) || {
	echo "There is no release yet to compare with (no tag v*)."
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
