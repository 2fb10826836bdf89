#!/usr/bin/env bash
# Makes sure that the tests find a PgBouncer; see install.sh.
set -euo pipefail

if command -v pgbouncer >/dev/null || [ -x /usr/sbin/pgbouncer ]; then
	exit 0
fi

exec "$(dirname "${BASH_SOURCE[0]}")/install.sh" PgBouncer pgbouncer "its tests" pgbouncer
