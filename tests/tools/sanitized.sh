#!/bin/bash
# sanitized.sh COMMAND...: runs a test of a sanitizer build. A report of any program that the test ran, also of one in
# the background or one whose standard error and exit status nobody looks at, is printed and fails the test.
set -u
reports=$(mktemp -d)
trap 'rm -rf "$reports"' EXIT
# No program of ours exits with this code by itself.
flags=log_path=$reports/report:exitcode=99
export ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}$flags UBSAN_OPTIONS=${UBSAN_OPTIONS:+$UBSAN_OPTIONS:}$flags
export LSAN_OPTIONS=${LSAN_OPTIONS:+$LSAN_OPTIONS:}$flags

rc=0
"$@" || rc=$?
for report in "$reports"/*; do
	[[ -e $report ]] || continue
	echo "sanitizer report of process ${report##*.}:"
	head -n 100 "$report"
	((rc != 0 && rc != 77)) || rc=1
done
exit $rc
