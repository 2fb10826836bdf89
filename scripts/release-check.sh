#!/usr/bin/env bash
# Checks that the version in CHANGELOG.md can be released. CONTRIBUTING.md has the commands that follow.
set -euo pipefail

cd "$(dirname "$0")/.."
version=$(sed -n 's/^## \(v[0-9]*\.[0-9]*\.[0-9]*\).*/\1/p' CHANGELOG.md | head -1)
[ -n "$version" ] || {
	echo "CHANGELOG.md has no heading with a version, such as: ## v0.1.0"
	exit 1
}
library=$(go list -m)
for dir in cmd/clerkinvite otelclerkinvite sqlitestore; do
	required=$(sed -n "s|^[[:space:]]*$library \(v[^ ]*\).*|\1|p" "$dir/go.mod")
	[ "$required" = "$version" ] || {
		echo "$dir/go.mod requires $library $required, and CHANGELOG.md says $version"
		exit 1
	}
	echo "$dir requires $version"
done
make --no-print-directory tidy-check apidiff
scripts/ensure-postgres.sh
export CLERKINVITE_REQUIRE=postgres
go test -count=1 -run '^(TestMigrations|TestMigrate_ExistingSchema|TestValidateKnowsTheMigrations)$' .
(cd cmd/clerkinvite && go test -count=1 -run '^TestGoInstallFromProxy$' .)
echo "$version can be released"
