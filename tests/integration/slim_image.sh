#!/bin/bash
# Images: slimmed from and to OCI layouts with configuration and layers, the same bytes each time; what a run misses is
# named, and repaired when asked for; nothing is written that does not work; why and why-not answer; a page is made.
set -u
. "$(dirname "$0")/slim/repo.sh"
. "$(dirname "$0")/slim/install.sh"
slim_need_root
slim_repo
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR=$work SOURCE_DATE_EPOCH=1700000000

slim_install "$work/full" bash coreutils curl ca-certificates
# a first image: everything, by a keep pattern
"$SLIMTRACE" slim -q --root "$work/full" --keep / --keep '/**' --set rpmdb=keep --level 1 --out "oci:$work/img:full" >/dev/null ||
	fail "the full image cannot be made"

slim() {
	"$SLIMTRACE" slim -q --image "oci:$work/img:full" "$@" 2>"$work/err"
}

# planned layers, twice the same
slim --run "bash -c 'echo hi'" --out "oci:$work/a:slim" --json >"$work/a.json" || fail "slim: $(cat "$work/err")"
slim --run "bash -c 'echo hi'" --out "oci:$work/b:slim" --json >"$work/b.json" || fail "slim: $(cat "$work/err")"
digest() {
	python3 -c 'import json, sys; d = json.load(open(sys.argv[1])); print(d["image"]["digest"], d["slim"]["bytes"], d["image"]["layers"])' "$1"
}
[[ $(digest "$work/a.json") == $(digest "$work/b.json") ]] || fail "two runs differ: $(digest "$work/a.json"), $(digest "$work/b.json")"
read -r _ bytes layers <<<"$(digest "$work/a.json")"
((bytes < 3900000 && layers >= 2)) || fail "$bytes bytes in $layers layers"

# a check that fails names the file and its package, writes nothing, and exits 3
slim --run "bash -c 'echo hi'" --check 'ls /' --out "oci:$work/c:slim" >"$work/out"
(($? == 3)) || fail "a failed check does not exit 3"
[[ ! -e $work/c ]] || fail "an image that failed was written"
grep -q 'missed /usr/bin/ls.*package coreutils, slice coreutils_bins' "$work/out" || fail "the missing file is not named: $(cat "$work/out")"
slim --run "bash -c 'echo hi'" --check 'ls /' --repair --out "oci:$work/c:slim" >"$work/out" || fail "not repaired: $(cat "$work/out")"
grep -q 'repaired /usr/bin/ls (package coreutils' "$work/out" || fail "the repair is not told"

# a tar and a folder
slim --run "bash -c 'echo hi'" --out "$work/x.tar" >/dev/null || fail "no tar"
tar -tf "$work/x.tar" | grep -q '^usr/bin/bash$' || fail "the tar has no bash"
slim --run "bash -c 'echo hi'" --out "$work/x" >/dev/null || fail "no folder"
slim --run "bash -c 'echo hi'" --out "$work/x" >/dev/null && fail "a folder that is there was written into"
[[ -z $(ls -d "$work"/x.partial* "$work"/x.tar.partial* 2>/dev/null) ]] || fail "something half done stays behind"

# interrupted: no half image under the final name, the work folder goes with the next run at the latest
{ timeout -s KILL 0.4 "$SLIMTRACE" slim -q --image "oci:$work/img:full" --run "bash -c 'sleep 1'" --out "$work/killed"; } >/dev/null 2>&1
[[ ! -e $work/killed ]] || fail "a killed run left $work/killed"

# why, why-not
why() {
	"$SLIMTRACE" "$@" 2>&1
}
out=$(why why -q --image "oci:$work/a:slim" --entry bash /usr/bin/bash) || fail "why: $out"
grep -q 'entry point: bash' <<<"$out" || fail "why does not tell the entry: $out"
out=$(why why -q --root "$work/full" --entry bash /usr/lib/x86_64-linux-gnu/libtinfo.so.6.4) || fail "why: $out"
grep -q 'needed: libtinfo.so.6' <<<"$out" || fail "why does not tell the need: $out"
out=$(why why-not -q --root "$work/full" --entry bash /usr/bin/ls) || fail "why-not: $out"
grep -q 'to keep its kind: --keep coreutils_bins' <<<"$out" || fail "why-not does not tell the slice: $out"
why why -q --root "$work/full" --entry bash /usr/bin/ls >/dev/null && fail "why of a dropped file exits 0"

# slices, packages, patterns; a name that is none
out=$(why why -q --root "$work/full" --entry bash --keep coreutils_bins /usr/bin/ls) || fail "a slice is not kept: $out"
why why -q --root "$work/full" --keep no_such_slice /usr/bin/ls >/dev/null && fail "an unknown slice is taken"

# the page holds the data and nothing from elsewhere
"$SLIMTRACE" report -q --root "$work/full" --entry bash --html "$work/report.html" >"$work/out" || fail "report"
grep -q '/usr/bin/bash' "$work/report.html" || fail "the page does not hold the files"
grep -oE '(src|href)="[^"]*"' "$work/report.html" && fail "the page loads something"
grep -q 'libc6' "$work/out" || fail "the report does not tell packages"

# images that are none
for bad in "oci:$work/nothing:x" "docker-archive:/dev/null" "oci-archive:$work/x.tar"; do
	"$SLIMTRACE" slim -q --image "$bad" --out "$work/never" >/dev/null 2>"$work/err"
	(($? == 1)) || fail "$bad: not refused"
	[[ -s $work/err && ! -e $work/never ]] || fail "$bad: no words, or something written"
done
exit 0
