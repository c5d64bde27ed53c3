# Sourced by check.sh: runs test programs side by side, prints their results in order, counts.
#
#   job_add KIND NAME COMMAND...   KIND `cmocka`: counted test by test; `script`: one test, exit 77 is a skip whose
#                                  reason is the last line printed
#                                  JOB_TIMEOUT ends one that hangs: the slowest takes some two minutes on a small machine
#   jobs_run                       runs all that were added, one line each, the output of those that failed
#
# Totals are left in n_passed, n_failed and n_skipped.

n_passed=0 n_failed=0 n_skipped=0
job_kinds=() job_names=() job_commands=()
job_dir=$(mktemp -d "${TMPDIR:-/tmp}/check-XXXXXX")
chmod 755 "$job_dir" # tests that run as another user work below it
trap 'rm -rf "$job_dir"' EXIT
trap 'kill $(jobs -pr) 2>/dev/null; exit 130' INT TERM

job_add() {
	job_kinds+=("$1")
	job_names+=("$2")
	shift 2
	job_commands+=("$(printf '%q ' "$@")")
}

# job_start INDEX: in the background. The file `done` appears last and is what the printer waits for.
job_start() {
	local d=$job_dir/$1 begin=${EPOCHREALTIME/[.,]/} rc=0 pid
	mkdir -p "$d/tmp"
	# timeout leads a process group of its own, out of reach of the terminal's Ctrl-C: hence the trap.
	TMPDIR=$d/tmp timeout -k 10 "${JOB_TIMEOUT:-900}" bash -c "${job_commands[$1]}" >"$d/out" 2>&1 </dev/null &
	pid=$!
	trap 'kill $pid; exit 1' TERM
	wait $pid 2>/dev/null || rc=$?
	trap 'exit 1' TERM
	echo "$rc $((${EPOCHREALTIME/[.,]/} - begin))" >"$d/done.new"
	rm -rf "$d/tmp"
	mv "$d/done.new" "$d/done"
}

# sum PATTERN FILE: the numbers of cmocka's closing lines, which stand there once per group.
sum() {
	sed -nE "s/^$1 ([0-9]+) test\(s\).*/\1/p" "$2" | { s=0; while read -r n; do s=$((s + n)); done; echo $s; }
}

# job_print INDEX: counts and prints a finished job.
job_print() {
	local d=$job_dir/$1 rc us passed=0 failed=0 skipped=0 word=ok note=
	read -r rc us <"$d/done" || rc=1 us=0 # a full disk, say
	if [[ ${job_kinds[$1]} == cmocka ]]; then
		passed=$(sum '\[  PASSED  \]' "$d/out")
		failed=$(sum '\[  FAILED  \]' "$d/out")
		skipped=$(sum '\[  SKIPPED \]' "$d/out")
		# A program that died has printed no closing line.
		((rc != 0 && passed == 0)) && passed=$(grep -ac '^\[       OK \]' "$d/out")
		((rc != 0 && failed == 0)) && failed=1
		((skipped > 0)) && note=" ($skipped skipped)"
	elif ((rc == 77)); then
		skipped=1 word=skip note=": $(tail -n 1 "$d/out")"
	else
		((rc == 0)) && passed=1 || failed=1
	fi
	((rc == 124)) && note=" (stopped after ${JOB_TIMEOUT:-900} s)"
	((failed > 0)) && word=FAIL
	printf '%-4s %4d %7.2fs  %s%s\n' "$word" $((passed + failed)) "$((us / 10000))e-2" "${job_names[$1]}" "$note"
	((failed > 0)) && tail -n 200 "$d/out" | sed 's/^/    | /'
	((n_passed += passed, n_failed += failed, n_skipped += skipped))
	return 0
}

jobs_run() {
	local next=0 running=0 limit=${JOBS:-$(nproc)} i
	for i in "${!job_kinds[@]}"; do
		if ((running >= limit)); then
			wait -n
			((running--))
		fi
		job_start "$i" &
		((++running))
		while ((next < i)) && [[ -e $job_dir/$next/done ]]; do
			job_print $((next++))
		done
	done
	wait
	while ((next < ${#job_kinds[@]})); do
		job_print $((next++))
	done
	job_kinds=() job_names=() job_commands=()
	rm -rf "${job_dir:?}"/*
}
