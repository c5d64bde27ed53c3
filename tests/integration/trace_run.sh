#!/bin/bash
# slimtrace trace as a way to run things: what goes in and comes out, how it ends, who it runs as, what it refuses. The
# root is made of this machine's own shell and tools.
set -u
cd "$(dirname "$0")/../.."
slimtrace=$(realpath "${BUILD_DIR:-build/release}")/bin/slimtrace
[[ -x $slimtrace ]] || { echo "no $slimtrace"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
fail() { echo "FAILED: $*"; exit 1; }

# run EXPECTED_STATUS ARGS...: output in $out, errors in $errors
run() {
	local want=$1 rc
	shift
	out=$("$slimtrace" trace -o "$work/t" "$@" 2>"$work/err")
	rc=$?
	errors=$(<"$work/err")
	[[ $rc == "$want" ]] || fail "slimtrace trace $*: status $rc, expected $want: $out $errors"
}
# has ACCESS PATH: is in the trace.
has() {
	awk -F'\t' -v a="$1" -v p="$2" '$1 == a && $8 == p { found = 1 } END { exit !found }' "$work/t" ||
		fail "no $1 of $2 in: $(head -n 60 "$work/t")"
}

# Wrong usage.
run 2
[[ $errors == *"no command"* && $errors == *"--help"* ]] || fail "$errors"
run 2 --root / --image oci:x -- true
run 2 --method perf -- true
run 2 --container x --method ptrace -- true
run 2 --mount nonsense --root / -- true
run 1 --root /nonexistent -- true
[[ $errors == *"/nonexistent"* ]] || fail "$errors"
run 1 -- /no/such/command
[[ $errors == *"/no/such/command"* ]] || fail "$errors"
run 1 --image "oci:$work/none:x" -- true

# Here: input, output, errors, exit status, signals.
echo data >"$work/data"
out=$(echo hello | "$slimtrace" trace -o "$work/t" -- sh -c 'cat; echo bad >&2; exit 5' 2>"$work/err")
[[ $? == 5 && $out == hello && $(head -n 1 "$work/err") == bad ]] || fail "$out $(<"$work/err")"
(cd "$work" && "$slimtrace" trace -q -o "$work/t" -- sh -c 'cat data') >/dev/null || fail "cat data"
has open "$work/data"
run 137 -- sh -c 'kill -KILL $$'
run 124 -- sh -c 'exit 124'
"$slimtrace" trace -q -o "$work/t" -- sh -c 'trap "exit 9" TERM; echo ready; while :; do sleep 0.05; done' >"$work/ready" &
pid=$!
for _ in {1..2400}; do [[ -s $work/ready ]] && break; sleep 0.05; done
kill -TERM $pid
wait $pid
[[ $? == 9 ]] || fail "a signal did not reach the command"
begin=$SECONDS
run 137 --timeout 0.5 -- sh -c 'sleep 600 & sleep 600'
[[ $errors == *"ended after 0.5 s"* && $((SECONDS - begin)) -lt 300 ]] || fail "$errors"
run 1 -o /nonexistent/trace -- true

# A program that traces another cannot, and that is said.
if command -v strace >/dev/null; then
	"$slimtrace" trace -o "$work/t" -- strace -o "$work/strace" true >/dev/null 2>"$work/err"
	grep -q 'ptrace is used by the command itself' "$work/err" || fail "nothing said of strace: $(<"$work/err")"
fi

# In a root.
unshare -m true 2>/dev/null || unshare -Urm true 2>/dev/null || { echo "no namespaces: roots were not tested"; exit 77; }
root=$work/root
mkdir -p "$root"/{bin,etc,data}
for tool in sh cat id env sleep ls touch; do
	file=$(command -v $tool)
	for lib in $(ldd "$file" | grep -o '/[^ )]*'); do
		cp -L --parents -n "$lib" "$root" 2>/dev/null || [[ -e $root$lib ]] || fail "cp $lib"
	done
	cp -L "$file" "$root/bin/$tool"
done
printf 'root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n' >"$root/etc/passwd"
printf 'web:x:34:\n' >"$root/etc/group"
echo inside >"$root/data/file"
ln -s /data/file "$root/data/link"
before=$(cd "$root" && find . -printf '%p %s %T@ %m\n' | sort)

in_root() {
	run 3 --root "$root" -- sh -c 'cat /data/link; touch /data/new; exit 3'
	[[ $out == inside ]] || fail "$out $errors"
	has readlink /data/link
	has open /data/file
	has create /data/new
	has exec /bin/cat
	awk -F'\t' '$1 == "kernel" && $8 ~ /ld/ { n++ } END { exit !n }' "$work/t" || fail "the loader is missing"
	grep -q "$root" "$work/t" && fail "a path of the host in the trace"
	[[ $(cd "$root" && find . -printf '%p %s %T@ %m\n' | sort) == "$before" ]] || fail "the root was changed"
	out=$(echo through | "$slimtrace" trace -q -o "$work/t" --root "$root" -- cat) || fail "cat"
	[[ $out == through ]] || fail "standard input: $out"
	run 0 --root "$root" --env A=b --cwd /tmp/here -- sh -c 'echo $A; pwd; echo $HOME'
	[[ $out == $'b\n/tmp/here\n/root' ]] || fail "$out"
	run 1 --root "$root" --user nobody -- id
	[[ $errors == *nobody* ]] || fail "$errors"
	run 0 --root "$root" --mount "$work/data:/mnt/x/data:ro" -- sh -c 'cat /mnt/x/data; echo y >/mnt/x/data || echo refused'
	[[ $out == $'data\nrefused' ]] || fail "$out"
	run 137 --root "$root" --timeout 0.5 -- sh -c 'sleep 600 & sleep 600'
	run 0 --root "$root" -- sh -c 'i=0; while [ $i -lt 300 ]; do (cat /data/file >/dev/null) & i=$((i+1)); done; wait'
	[[ $(grep -c "^process" "$work/t") -ge 301 ]] || fail "$(grep -c "^process" "$work/t") processes"
}

# Root of a user namespace that has one user: groups are denied there, and need not be set; another user cannot be had.
as_only_user() {
	local real=$slimtrace
	unshare -Ur true 2>/dev/null || return 0
	slimtrace=$work/only-user
	printf '#!/bin/sh\nexec unshare -Ur %s "$@"\n' "$real" >"$slimtrace"
	chmod 755 "$slimtrace"
	run 0 --root "$root" -- cat /data/file
	run 1 --root "$root" --user web -- id
	[[ $errors == *"setgroups"*"/proc/self/setgroups"*"not permitted"* ]] || fail "$errors"
	slimtrace=$real
}

in_root
as_only_user
if ((EUID == 0)); then
	run 0 --root "$root" --user web -- id
	[[ $out == *"uid=33"*"gid=34"* ]] || fail "$out"
	# No fewer rights than a container, no more.
	run 0 --root "$root" -- cat /proc/self/status
	[[ $out == *"CapEff:"* ]] || fail "$out"
	grep -q 'CapEff:	000001ffffffffff' <<<"$out" && fail "all capabilities were kept"
	# The same as an ordinary user, where that is allowed.
	if command -v setpriv >/dev/null && setpriv --reuid=65534 --regid=65534 --clear-groups unshare -Urm true 2>/dev/null; then
		mkdir -m 777 "$work/user"
		cp "$slimtrace" "$work/slimtrace"
		real=$slimtrace
		slimtrace=$work/as-user
		printf '#!/bin/sh\nexec setpriv --reuid=65534 --regid=65534 --clear-groups %s "$@"\n' "$work/slimtrace" >"$slimtrace"
		chmod 755 "$slimtrace"
		chmod 777 "$work"
		in_root
		[[ $errors == *"ordinary user"* ]] || fail "nothing said of the user namespace: $errors"
		slimtrace=$real
		echo "as root and as an ordinary user: all as expected"
	else
		echo "no user namespaces for ordinary users: only tested as root"
	fi
else
	echo "not root: only tested as an ordinary user"
fi
