#!/usr/bin/env bash
# Makes sure that the browser tests find a Chromium; see install.sh.
set -euo pipefail

# Where the tests look: CLERKINVITE_TEST_CHROMIUM, or one of these names in PATH.
for program in "${CLERKINVITE_TEST_CHROMIUM:-}" chromium chromium-browser google-chrome-stable google-chrome; do
	if [ -n "$program" ] && command -v "$program" >/dev/null; then
		exit 0
	fi
done

exec "$(dirname "${BASH_SOURCE[0]}")/install.sh" Chromium chromium "the browser tests" "--cask chromium"
