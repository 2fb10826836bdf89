#!/usr/bin/env bash
# install.sh NAME PACKAGE TESTS FORMULA [ELSEWHERE] installs a program for tests that do not find it. As root on Debian or Ubuntu it
# installs PACKAGE; elsewhere it prints the command to run: for Homebrew with FORMULA, or otherwise for ELSEWHERE (PACKAGE by default).
# It does not fail: without the program the TESTS report what they skip, or fail if CLERKINVITE_REQUIRE names it.
set -euo pipefail

name=$1 package=$2 tests=$3 formula=$4 elsewhere=${5:-$2}
install="apt-get install -y --no-install-recommends $package"
if ! command -v apt-get >/dev/null; then
	case $(uname -s) in
	Darwin) install="brew install $formula" ;;
	*) install="your package manager, for $elsewhere" ;;
	esac
	echo "There is no $name here, so $tests will be skipped. To install it: $install" >&2
	exit 0
fi
if [ "$(id -u)" != 0 ]; then
	echo "There is no $name here, so $tests will be skipped. To install it: sudo $install" >&2
	exit 0
fi
echo "There is no $name here; installing it."
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086 # splits into words
if ! { apt-get update -qq && $install -qq </dev/null; }; then
	echo "$name could not be installed, so $tests will be skipped." >&2
fi
