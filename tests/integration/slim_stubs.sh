#!/bin/bash
# Libraries that are loaded and used by nobody become stubs; the program runs; a call into a stub says what to keep, and
# --repair keeps it.
set -u
. "$(dirname "$0")/slim/repo.sh"
. "$(dirname "$0")/slim/install.sh"
slim_need_root
slim_repo
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR=$work

slim_install "$work/full" curl ca-certificates
run='curl --version'
"$SLIMTRACE" slim -q --root "$work/full" --run "$run" --out "$work/plain" >/dev/null || fail "plain"
"$SLIMTRACE" slim -q --root "$work/full" --run "$run" --stub-unbound --out "$work/stubs" >"$work/out" 2>&1 || fail "stubs: $(cat "$work/out")"
plain=$(slim_size "$work/plain") stubs=$(slim_size "$work/stubs")
echo "curl --version: $plain bytes, with stubs $stubs; $(grep '^stubs' "$work/out")"
((stubs + 1000000 < plain)) || fail "stubs bring less than 1 MB: $plain -> $stubs"
slim_root "$work/stubs" /usr/bin/curl --version 2>&1 | grep -q '^curl 7' || fail "curl does not run with stubs"

# a run that needs one of them: told, then repaired
check='curl -sS -u user:word --negotiate http://127.0.0.1:1/'
"$SLIMTRACE" slim -q --root "$work/full" --run "$run" --check 'curl -sS https://127.0.0.1:1/' --check "$check" --stub-unbound --repair \
	--out "$work/repaired" >"$work/out" 2>&1 || fail "not repaired: $(cat "$work/out")"
"$SLIMTRACE" slim -q --root "$work/full" --stub-unbound --out "$work/none" >"$work/out" 2>&1 && fail "stubs without a run"
grep -q 'need a run' "$work/out" || fail "no words: $(cat "$work/out")"
exit 0
