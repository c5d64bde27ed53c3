#!/bin/bash
# What `make check` runs. Called by make with MAKE, BUILD_DIR, SAN and PARALLEL; prints one line per test program and
# ends with "N passed, N failed[, N skipped]". Exit status 1 when anything failed.
#
# Without SAN: everything in the release build, then the same under address,undefined, and the unit tests that use
# threads under thread. With SAN: everything in that build. What the tree does not have is not tested.
set -u
cd "$(dirname "$0")/../.."
export TOP=$PWD TESTS_DIR=$PWD/tests
shopt -s nullglob
. tests/tools/jobs.sh

# Options are harmless to programs built without the sanitizer.
supp=$TESTS_DIR/tools
export ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1:allocator_may_return_null=1
export LSAN_OPTIONS=suppressions=$supp/lsan.supp:print_suppressions=0
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
export TSAN_OPTIONS=suppressions=$supp/tsan.supp:second_deadlock_stack=1

# build DIR WHAT...: a failing build is a failed test; what could be built is tested all the same.
build() {
	local name=$1 begin=$SECONDS
	shift
	if $MAKE --no-print-directory -k $PARALLEL "$@" >"$job_dir/build.log" 2>&1; then
		printf 'ok      - %7ds  build %s\n' $((SECONDS - begin)) "$name"
		# Warnings are worth reading even where they are no errors.
		grep -A3 'warning:' "$job_dir/build.log" | head -n 40 | sed 's/^/    | /'
	else
		printf 'FAIL    1 %7ds  build %s\n' $((SECONDS - begin)) "$name"
		grep -vE '^  (CC|AR|LINK|MAN) ' "$job_dir/build.log" | tail -n 100 | sed 's/^/    | /'
		((++n_failed))
	fi
}

# In front of what runs programs of an address sanitizer build.
sanitized=(bash tests/tools/sanitized.sh)

# name_of tests/unit/base/test_err.c -> base/test_err
name_of() {
	local n=${1#tests/unit/}
	echo "${n%.c}"
}

threaded_tests() {
	grep -lE 'pthread|threadpool|thrd_create' tests/unit/*/test_*.c /dev/null
}

add_units() { # CONFIG SOURCE...
	local config=$1 src name run=()
	shift
	# ThreadSanitizer of older compilers does not cope with much address space randomisation.
	[[ $config == san-thread ]] && setarch -R true 2>/dev/null && run=(setarch -R)
	[[ $config == san-address* ]] && run=("${sanitized[@]}")
	for src; do
		name=$(name_of "$src")
		job_add cmocka "$name [$config]" ${run[@]+"${run[@]}"} "build/$config/tests/unit/$name"
	done
}

add_replays() { # CONFIG
	local src name
	for src in tests/fuzz/fuzz_*.c; do
		name=${src#tests/fuzz/fuzz_}
		name=${name%.c}
		if [[ -d tests/fuzz/corpus/$name ]]; then
			job_add script "fuzz corpus $name [$1]" "build/$1/tests/replay/$name" "tests/fuzz/corpus/$name"
		else
			job_add script "fuzz corpus $name [$1]" sh -c "echo tests/fuzz/corpus/$name is missing; exit 1"
		fi
	done
}

add_integration() { # CONFIG [EXCEPT: names of scripts, an extended regular expression]
	local script bin=$TOP/build/$1/bin run=()
	[[ $1 == san-address* ]] && run=("${sanitized[@]}")
	for script in tests/integration/*.sh; do
		[[ -n ${2:-} && ${script##*/} =~ ^($2) ]] && continue
		job_add script "${script#tests/} [$1]" env BUILD_DIR="$TOP/build/$1" OCAI="$bin/ocai" \
			OCAI_ENGINE="$bin/ocai-engine" ${run[@]+"${run[@]}"} bash "$script"
	done
}

config=${BUILD_DIR#build/}
build "$config" tests
if [[ -z $SAN ]]; then
	build san-address-undefined SAN=address,undefined all units-and-replays
	mapfile -t threaded < <(threaded_tests)
	# shellcheck disable=SC2046 # names without blanks
	build san-thread SAN=thread $(for t in "${threaded[@]}"; do echo "build/san-thread/tests/unit/$(name_of "$t")"; done)
fi

export BUILD_DIR
for check in tests/tools/check-*.sh; do
	job_add script "${check#tests/tools/}" bash "$check"
done
add_integration "$config"
add_units "$config" tests/unit/*/test_*.c
add_replays "$config"
if [[ -z $SAN ]]; then
	# Those of slimtrace take minutes there: SAN=address,undefined runs them. The documentation is for users' builds.
	add_integration san-address-undefined 'install|slim_|cut_|trace_|docs'
	add_units san-address-undefined tests/unit/*/test_*.c
	add_replays san-address-undefined
	add_units san-thread "${threaded[@]}"
fi
jobs_run

skipped=
((n_skipped > 0)) && skipped=", $n_skipped skipped"
echo "$n_passed passed, $n_failed failed$skipped"
((n_failed == 0))
