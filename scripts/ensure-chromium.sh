#!/usr/bin/env bash
# Makes sure that the browser tests find a Chromium. As root on Debian or Ubuntu it installs one; elsewhere it prints the command to run. It does
# not fail without Chromium: the tests then report what they skip, or fail if CLERKINVITE_REQUIRE names chromium.
set -euo pipefail

# Where the tests look: CLERKINVITE_TEST_CHROMIUM, or one of these names in PATH.
for program in "${CLERKINVITE_TEST_CHROMIUM:-}" chromium chromium-browser google-chrome-stable google-chrome; do
	if [ -n "$program" ] && command -v "$program" >/dev/null; then
		exit 0
	fi
done

install='apt-get install -y --no-install-recommends chromium'
if ! command -v apt-get >/dev/null; then
	case $(uname -s) in
	Darwin) install='brew install --cask chromium' ;;
	*) install='your package manager, for chromium' ;;
	esac
	echo "There is no Chromium here, so the browser tests will be skipped. To install it: $install" >&2
	exit 0
fi
if [ "$(id -u)" != 0 ]; then
	echo "There is no Chromium here, so the browser tests will be skipped. To install it: sudo $install" >&2
	exit 0
fi
echo "There is no Chromium here; installing it."
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086 # splits into words
if ! { apt-get update -qq && $install -qq </dev/null; }; then
	echo "Chromium could not be installed, so the browser tests will be skipped." >&2
fi
