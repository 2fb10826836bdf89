#!/usr/bin/env bash
# Runs go test with the given arguments and then lists the skipped tests: go test itself prints "ok" for a package that skipped
# everything.
set -euo pipefail

skipped=$(mktemp)
trap 'rm -f "$skipped"' EXIT
status=0
CLERKINVITE_SKIPPED=$skipped go test "$@" || status=$?
if [ -s "$skipped" ]; then
	echo
	echo "NOT TESTED: these were skipped (count, reason)"
	cut -f 1 "$skipped" | sort | uniq -c
fi
exit "$status"
