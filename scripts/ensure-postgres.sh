#!/usr/bin/env bash
# Makes sure that the tests find a PostgreSQL. As root on Debian or Ubuntu it installs one; elsewhere it prints the command to run. It does
# not fail without PostgreSQL: the tests then report what they skip, or fail if CLERKINVITE_REQUIRE names postgres.
set -euo pipefail

# The caller has chosen a server; pgtest reports whether it works.
if [ -n "${CLERKINVITE_TEST_DATABASE:-}${CLERKINVITE_TEST_PGBIN:-}" ]; then
	exit 0
fi

# Where internal/pgtest looks.
if command -v postgres >/dev/null; then
	exit 0
fi
for initdb in /usr/lib/postgresql/*/bin/initdb /usr/pgsql-*/bin/initdb /opt/homebrew/opt/postgresql*/bin/initdb \
	/usr/local/opt/postgresql*/bin/initdb /Applications/Postgres.app/Contents/Versions/*/bin/initdb; do
	if [ -x "$initdb" ]; then
		exit 0
	fi
done

install='apt-get install -y --no-install-recommends postgresql'
if ! command -v apt-get >/dev/null; then
	case $(uname -s) in
	Darwin) install='brew install postgresql' ;;
	*) install='your package manager, for a PostgreSQL server of version 14 or newer' ;;
	esac
	echo "There is no PostgreSQL here, so most tests will be skipped. To install it: $install" >&2
	exit 0
fi
if [ "$(id -u)" != 0 ]; then
	echo "There is no PostgreSQL here, so most tests will be skipped. To install it: sudo $install" >&2
	exit 0
fi
echo "There is no PostgreSQL here; installing it."
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086 # splits into words
if ! { apt-get update -qq && $install -qq </dev/null; }; then
	echo "PostgreSQL could not be installed, so most tests will be skipped." >&2
fi
