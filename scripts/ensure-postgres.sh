#!/usr/bin/env bash
# Makes sure that the tests find a PostgreSQL; see install.sh.
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

exec "$(dirname "${BASH_SOURCE[0]}")/install.sh" PostgreSQL postgresql "most tests" postgresql "a PostgreSQL server of version 14 or newer"
