#!/usr/bin/env bash
# Makes sure that the tests find a PgBouncer. As root on Debian or Ubuntu it installs one; elsewhere it prints the command to run. It does
# not fail without PgBouncer: the tests then report what they skip, or fail if CLERKINVITE_REQUIRE names pgbouncer.
set -euo pipefail

if command -v pgbouncer >/dev/null || [ -x /usr/sbin/pgbouncer ]; then
	exit 0
fi

install='apt-get install -y --no-install-recommends pgbouncer'
if ! command -v apt-get >/dev/null; then
	case $(uname -s) in
	Darwin) install='brew install pgbouncer' ;;
	*) install='your package manager, for pgbouncer' ;;
	esac
	echo "There is no PgBouncer here, so its tests will be skipped. To install it: $install" >&2
	exit 0
fi
if [ "$(id -u)" != 0 ]; then
	echo "There is no PgBouncer here, so its tests will be skipped. To install it: sudo $install" >&2
	exit 0
fi
echo "There is no PgBouncer here; installing it."
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086 # splits into words
if ! { apt-get update -qq && $install -qq </dev/null; }; then
	echo "PgBouncer could not be installed, so its tests will be skipped." >&2
fi
