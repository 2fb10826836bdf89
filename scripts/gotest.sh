#!/usr/bin/env bash
# go test with the given arguments, then what was skipped for want of something on this machine: go test itself says "ok" of a
# package that has skipped everything.
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
