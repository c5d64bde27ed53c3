#!/bin/bash
# Installed roots are slimmed by what a run touches: as small as promised (everything in the result counts, its package
# database too), the traced run and different ones do the same as in the full root, and rpm tells the truth about it.
set -u
. "$(dirname "$0")/slim/repo.sh"
. "$(dirname "$0")/slim/install.sh"
slim_need_root
slim_repo
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# slims NAME LIMIT FULL OPTION...
slims() {
	local name=$1 limit=$2 full=$3 size
	shift 3
	"$SLIMTRACE" slim -q --root "$work/$full" --out "$work/$name" "$@" >"$work/$name.log" 2>"$work/$name.err" ||
		fail "$name: $(grep -A4 FAILED "$work/$name.log"; tail -n 2 "$work/$name.err")"
	size=$(slim_size "$work/$name")
	printf '%-10s %9d bytes, limit %9d; full root %9d\n' "$name" "$size" "$limit" "$(slim_size "$work/$full")"
	((size <= limit)) || fail "$name: $size bytes are more than $limit"
	# emptied sources differ from their package, and rpm says so
	[[ $name == *-pyc ]] || slim_rpm "$work/$name" -Va >"$work/verify" 2>&1 || fail "$name: rpm -Va: $(cat "$work/verify")"
}

# has_packages NAME PACKAGE...: these are told in the result's database.
has_packages() {
	local name=$1 have p
	shift
	have=" $(slim_rpm "$work/$name" -qa --qf '%{NAME} ')"
	for p in "$@"; do
		[[ $have == *" $p "* ]] || fail "$name: rpm -qa does not tell $p: $have"
	done
}

runs() {
	local name=$1 pattern=$2 out
	shift 2
	out=$(slim_root "$work/$name" "$@" 2>&1) || fail "$name: $*: exit $?: $out"
	grep -qE -- "$pattern" <<<"$out" || fail "$name: $*: printed \"$out\", expected $pattern"
}

slim_install "$work/full-busybox" busybox
# A state for each absent file takes 15 kB, more than the promise of 3.0 MB leaves room for; telling them in words does not.
slims busybox 3015000 full-busybox --run 'busybox ls /' --run "busybox sh -c 'busybox uname'" --check "busybox sh -c 'exit 3'"
slims busybox-short 3000000 full-busybox --set rpmdb=short --run 'busybox ls /' --run "busybox sh -c 'busybox uname'"
runs busybox Linux /usr/bin/busybox uname
has_packages busybox busybox libc6

slim_install "$work/full-bash" bash
slims bash 3700000 full-bash --run "bash -c 'echo hi'" \
	--check "bash -c 'LC_ALL=C.UTF-8; x=aou; echo \${#x} \${x^^}'" --check "bash -c 'set -u; echo \$nope'" \
	--check "bash -c 'mkdir /x'"
runs bash '^12$' /usr/bin/bash -c 'echo $((3 * 4))'
has_packages bash bash libc6 libtinfo6

slim_install "$work/full-numpy" python3-numpy
python="python3 -c"
slims python 18500000 full-numpy --run "$python 'import json, ssl, sqlite3, hashlib, re; print(hashlib.sha256(b\"x\").hexdigest())'" \
	--check "$python 'import locale; print(locale.setlocale(locale.LC_ALL, \"C\"))'" \
	--check "$python 'import socket; print(socket.getaddrinfo(\"127.0.0.1\", 80)[0][4])'" \
	--check "$python 'import nonesuch'" --check "$python '1/0'" \
	--check "$python 'import sqlite3; print(sqlite3.connect(\":memory:\").execute(\"select 1 + 1\").fetchall())'"
has_packages python python3.11-minimal libssl3 libsqlite3-0

numpy="$python 'import numpy; print(numpy.linalg.inv([[1, 2], [3, 4]]))'"
slims numpy-short 38000000 full-numpy --set rpmdb=short --run "$numpy"
slims numpy 38100000 full-numpy --run "$numpy" --save-trace "$work/numpy.trace" \
	--check "$python 'import numpy as n; print(n.fft.fft(n.ones(4)))'" \
	--check "$python 'import numpy as n; n.linalg.inv(n.zeros((2, 2)))'"
slims numpy-pyc 39000000 full-numpy --run "$numpy" --pyc only
[[ -s $work/numpy-pyc/usr/lib/python3/dist-packages/numpy/__pycache__/__init__.cpython-311.pyc ]] || fail "no byte code"
[[ ! -s $work/numpy-pyc/usr/lib/python3/dist-packages/numpy/__init__.py ]] || fail "sources are still there"
has_packages numpy python3-numpy

# another user
slims user 12000000 full-numpy --user 65534 --run "$python 'import os; print(os.getuid())'" \
	--check "$python 'open(\"/etc/passwd\", \"a\")'"

slim_install "$work/full-curl" curl openssl ca-certificates bash
slims curl 22500000 full-curl --run 'curl --version' --run 'openssl version' --run 'curl -sS file:///etc/os-release' \
	--check 'curl -sS https://127.0.0.1:1/' --check 'curl -sS http://no-such-name.invalid/' \
	--check 'openssl dgst -sha256 /etc/os-release'
[[ -s $work/curl/etc/ssl/certs/ca-certificates.crt ]] || fail "no certificates"
has_packages curl curl openssl ca-certificates

# the trace that was saved does the work of the run
"$SLIMTRACE" slim -q --root "$work/full-numpy" --trace "$work/numpy.trace" --out "$work/again" >/dev/null ||
	fail "with a trace: exit $?"
diff -r --no-dereference "$work/numpy" "$work/again" >"$work/diff" || fail "run and trace differ: $(head -n 3 "$work/diff")"
