#!/usr/bin/env bash
# fuzz.sh [DURATION] runs each Fuzz target of the root module for DURATION (as in go test -fuzztime; default 10s), one after the
# other, and fails if one of them fails. go test writes a failing input to testdata/fuzz beside the target: commit it with the fix.
# If CLERKINVITE_ATTACK_ROWS names a file, each target appends a row to it, as internal/tally does.
set -euo pipefail

cd "$(dirname "$0")/.."
duration=${1:-10s}
work=$(mktemp -d)
log=$work/log
trap 'rm -rf "$work"' EXIT

# go test sometimes reports the end of the fuzz time as a failure. A target that really fails or hangs leaves its input and prints
# more than this.
only_out_of_time() {
	[ "$(sed -n '/^--- FAIL/,/^FAIL$/p' "$log" | sed '1d;$d')" = '    context deadline exceeded' ] && ! grep -q 'Failing input' "$log"
}

# Does the same as "go test -fuzz", but links the tests of a package only once for all of its targets.
fuzz() {
	local package=$1 name=$2 binary dir
	binary=$work/$(basename "$package").test
	dir=$(go list -f '{{.Dir}}' "$package")
	[ -x "$binary" ] || go test -c -vet=off -fuzz Fuzz -o "$binary" "$package" || return
	(cd "$dir" && "$binary" -test.run '^$' -test.fuzz "^$name\$" -test.fuzztime "$duration" -test.fuzzcachedir "$(go env GOCACHE)/fuzz/$package" -test.paniconexit0)
}

targets=()
while read -r dir package; do
	for name in $(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$dir"/*_test.go 2>/dev/null); do targets+=("$package $name"); done
done < <(go list -f '{{.Dir}} {{.ImportPath}}' ./...)
if [ ${#targets[@]} = 0 ]; then
	echo "No fuzz targets found." >&2
	exit 1
fi

status=0
for target in "${targets[@]}"; do
	read -r package name <<<"$target"
	start=$SECONDS
	if fuzz "$package" "$name" >"$log" 2>&1 || only_out_of_time; then
		execs=$(sed -n 's/.*execs: \([0-9]*\).*/\1/p' "$log" | tail -n 1)
		if [ "${execs:-0}" = 0 ] && [ -n "${CLERKINVITE_ATTACK_ROWS:-}" ]; then
			printf '%-22s %-50s did not run at all\n' "$name" "$package"
			status=1
			continue
		fi
		printf '%-22s %-50s %10s executions, no failure\n' "$name" "$package" "${execs:-0}"
		if [ -n "${CLERKINVITE_ATTACK_ROWS:-}" ]; then
			printf '{"what":"%s","times":"%s executions","lost":"0 failures","seconds":%d}\n' \
				"fuzzing: $name" "${execs:-0}" $((SECONDS - start)) >>"$CLERKINVITE_ATTACK_ROWS"
		fi
	else
		printf '%-22s %-50s FAILED\n' "$name" "$package"
		cat "$log"
		status=1
	fi
done
exit $status
