#!/usr/bin/env bash
# Installs the JavaScript libraries that the tests in lab/attack/peers compare with, from the package-lock.json there. It installs
# nothing else, and does not fail without node or a registry: the tests then report what they skip, or fail if CLERKINVITE_REQUIRE
# names node.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../lab/attack/peers"
export npm_config_update_notifier=false

if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
	echo "There is no node with npm here, so the tests that compare with JavaScript libraries will be skipped." >&2
	exit 0
fi
if ! node -e 'process.exit(Number(process.versions.node.split(".")[0]) >= 20 ? 0 : 1)'; then
	echo "This is node $(node --version), and 20 is needed, so the tests that compare with JavaScript libraries will be skipped." >&2
	exit 0
fi

# The copy shows that this version of the file is completely installed.
installed=node_modules/.installed-package-lock.json
if cmp -s package-lock.json "$installed"; then
	exit 0
fi
for try in 1 2 3; do
	if npm ci --ignore-scripts --no-audit --no-fund --loglevel=error; then
		cp package-lock.json "$installed"
		exit 0
	fi
	echo "npm ci failed ($try of 3)." >&2
	sleep $((try * 2))
done
echo "The JavaScript libraries could not be installed, so the tests that compare with them will be skipped." >&2
