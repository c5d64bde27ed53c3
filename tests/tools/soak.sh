#!/bin/bash
# What `make soak` runs: COUNT requests of random shape (24,000) from 64 connections at a tiny model, under the address
# and the thread sanitizer. SEED picks others. Called by make with MAKE and PARALLEL; one line per sanitizer.
set -u
cd "$(dirname "$0")/../.."
supp=$PWD/tests/tools
export ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1:allocator_may_return_null=1
export LSAN_OPTIONS=suppressions=$supp/lsan.supp:print_suppressions=0
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
export TSAN_OPTIONS=suppressions=$supp/tsan.supp:second_deadlock_stack=1:halt_on_error=1
rc=0
for san in address,undefined thread; do
	build=build/san-${san/,/-}
	$MAKE --no-print-directory $PARALLEL SAN=$san "$build/bin/ocai-engine" "$build/tests/tools/http_load" tests/fixtures/.unpacked >&2 || exit
	run=(bash tests/tools/sanitized.sh)
	# ThreadSanitizer of older compilers does not cope with much address space randomisation.
	[[ $san == thread ]] && setarch -R true 2>/dev/null && run=(setarch -R)
	begin=$SECONDS
	BUILD_DIR=$build "${run[@]}" bash tests/integration/http_load.sh "${COUNT:-24000}" "${SEED:-1}"
	code=$?
	((code == 0)) && word=ok || { word=FAIL; rc=1; }
	echo "$word $san, $((SECONDS - begin)) s"
done
exit $rc
