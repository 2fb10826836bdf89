#!/usr/bin/env bash
# Fuzzes each Fuzz target of the core module for DURATION (as go test -fuzztime takes it; 10s if it is not given), one after the
# other, and fails if one of them does. What go test finds it writes to testdata/fuzz beside the target: commit it with the fix.
# With CLERKINVITE_ATTACK_ROWS each target gets a row there, as internal/tally writes it.
set -euo pipefail

cd "$(dirname "$0")/.."
duration=${1:-10s}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# Sometimes go test calls it a failure that its own time was over in the middle of an execution. A target that really fails, or hangs,
# leaves the input that it failed on, and says more than this.
only_out_of_time() {
	[ "$(sed -n '/^--- FAIL/,/^FAIL$/p' "$log" | sed '1d;$d')" = '    context deadline exceeded' ] && ! grep -q 'Failing input' "$log"
}

# Names come before the package that they are of.
targets=() names=()
list=$(go test -vet=off -list '^Fuzz' ./...)
while read -r first second _; do
	case $first in
	Fuzz*) names+=("$first") ;;
	ok | '?')
		for name in ${names[@]+"${names[@]}"}; do targets+=("$second $name"); done
		names=()
		;;
	esac
done <<<"$list"
if [ ${#targets[@]} = 0 ]; then
	echo "There is no fuzz target." >&2
	exit 1
fi

status=0
for target in "${targets[@]}"; do
	read -r package name <<<"$target"
	start=$SECONDS
	if go test -vet=off -run '^$' -fuzz "^$name\$" -fuzztime "$duration" "$package" >"$log" 2>&1 || only_out_of_time; then
		execs=$(sed -n 's/.*execs: \([0-9]*\).*/\1/p' "$log" | tail -n 1)
		if [ "${execs:-0}" = 0 ] && [ -n "${CLERKINVITE_ATTACK_ROWS:-}" ]; then
			printf '%-22s %-50s was not executed once\n' "$name" "$package"
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
