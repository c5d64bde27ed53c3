#!/bin/bash
# slim by an ordinary user, in a user namespace of its own: the same image, byte by byte, as by root, owners included; runs,
# checks, repairs, stubs and byte code; roots and folders; and words where namespaces are not to be had.
set -u
. "$(dirname "$0")/slim/repo.sh"
. "$(dirname "$0")/slim/install.sh"
slim_need_root
slim_repo
command -v setpriv >/dev/null || skip "setpriv is missing: no other user to be"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
mkdir -m 700 "$work/home" "$work/home/tmp"
cp "$SLIMTRACE" "$work/slimtrace"
export SOURCE_DATE_EPOCH=1700000000
# as_user COMMAND...: uid 65534 without any capability or group
as_user() { (cd "$work/home" && setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all env HOME="$work/home" TMPDIR="$work/home/tmp" "$@"); }
chown -R 65534:65534 "$work/home"
as_user unshare -Ur true 2>"$work/log" || skip "no user namespaces for ordinary users here: $(cat "$work/log")"

# An image with files of several owners, modes and a capability.
slim_install "$work/full" bash coreutils python3-minimal >/dev/null
: >"$work/full/etc/owned"
chown 12:34 "$work/full/etc/owned"
chmod 0440 "$work/full/etc/owned"
mkdir -m 1777 "$work/full/srv/shared"
cp "$work/full/usr/bin/true" "$work/full/usr/bin/privileged"
chmod 4755 "$work/full/usr/bin/privileged"
setfattr -n security.capability -v 0x0100000200200000000000000000000000000000 "$work/full/usr/bin/true" 2>/dev/null
"$SLIMTRACE" slim -q --root "$work/full" --keep / --keep '/**' --set rpmdb=keep --level 1 --out "oci:$work/home/images:full" >"$work/log" 2>&1 ||
	fail "the image: $(tail -n 1 "$work/log")"
chown -R 65534:65534 "$work/home"

options=(--run "bash -c 'cat /etc/owned; ls / >/dev/null; echo \$UID'" --run "python3 -c 'import json; print(json.dumps([1]))'"
	--check "bash -c 'echo x >/srv/shared/new && cat /srv/shared/new'" --check "bash -c 'exit 3'" --keep /usr/bin/privileged --keep /usr/bin/true
	--keep /srv/shared --pyc beside)
as_user "$work/slimtrace" slim --image "oci:$work/home/images:full" --out "oci:$work/home/images:user" "${options[@]}" >"$work/log" 2>&1 ||
	fail "slim by a user: $(tail -n 2 "$work/log")"
[[ $(grep -c '^passed' "$work/log") == 4 ]] || fail "slim by a user: $(grep -A3 FAILED "$work/log")"
"$SLIMTRACE" slim -q --image "oci:$work/home/images:full" --out "oci:$work/home/images:root" "${options[@]}" >"$work/log" 2>&1 ||
	fail "slim by root: $(tail -n 2 "$work/log")"
digest() { python3 - "$work/home/images/index.json" "$1" <<'PY'
import json, sys
for m in json.load(open(sys.argv[1]))["manifests"]:
    if m.get("annotations", {}).get("org.opencontainers.image.ref.name") == sys.argv[2]:
        print(m["digest"])
PY
}
[[ -n $(digest user) && $(digest user) == "$(digest root)" ]] || {
	"$SLIMTRACE" diff --times "oci:$work/home/images:user" "oci:$work/home/images:root" | head -n 20
	fail "a user's image differs from root's"
}

# What is in it, unpacked by root.
"$SLIMTRACE" slim -q --image "oci:$work/home/images:user" --keep / --keep '/**' --set rpmdb=keep --out "$work/out" >"$work/log" 2>&1 || fail "unpack: $(tail -n 1 "$work/log")"
is() { [[ $2 == "$3" ]] || fail "$1: $2, expected $3"; }
is owned "$(stat -c '%a %u:%g' "$work/out/etc/owned")" '440 12:34'
is privileged "$(stat -c '%a %u:%g' "$work/out/usr/bin/privileged")" '4755 0:0'
is shared "$(stat -c %a "$work/out/srv/shared")" 1777
slim_rpm "$work/out" -Va >"$work/verify" 2>&1
grep -v '/usr/bin/true' "$work/verify" && fail "rpm -Va in a user's image: $(cat "$work/verify")"
slim_root "$work/out" /usr/bin/bash -c 'echo $((6 * 7))' | grep -qx 42 || fail "a user's image does not run"

# A root in, a folder out: what a user cannot give away is his, which is said; repairs work.
mkdir "$work/home/root"
cp -a "$work/out/." "$work/home/root"
chown -R 65534:65534 "$work/home/root"
as_user "$work/slimtrace" slim --root "$work/home/root" --out "$work/home/out" --run "bash -c 'echo a'" \
	--check "bash -c 'cat /etc/owned && echo b'" --repair >"$work/log" 2>&1 || fail "slim of a root by a user: $(tail -n 3 "$work/log")"
[[ -e $work/home/out/etc/owned ]] || fail "a repair by a user brought nothing"
is out "$(stat -c %u "$work/home/out/usr/bin/bash")" 65534
as_user "$work/slimtrace" slim -q --root "$work/home/root" --out "$work/home/stubs" --stub-unbound --run "python3 -c 'print(1)'" >"$work/log" 2>&1 ||
	fail "stubs by a user: $(tail -n 2 "$work/log")"
[[ -z $(ls -A "$work/home/tmp") ]] || fail "left behind: $(ls -A "$work/home/tmp")"

# Without namespaces: words, and nothing half done. Plans that run nothing need none.
if unshare -U true 2>/dev/null; then
	no_namespaces() { unshare -Ur sh -c 'echo 0 >/proc/sys/user/max_user_namespaces && echo 0 >/proc/sys/user/max_mnt_namespaces && exec "$0" "$@"' "$@"; }
	chmod -R a+rX "$work/home"
	(cd "$work" && no_namespaces "$work/slimtrace" slim -q --root "$work/full" --out "$work/none" --run "bash -c 'echo a'") >"$work/log" 2>&1 &&
		fail "a run without namespaces succeeded"
	grep -q namespace "$work/log" || fail "without namespaces: $(tail -n 1 "$work/log")"
	[[ ! -e $work/none ]] || fail "without namespaces something was written"
	(cd "$work" && no_namespaces "$work/slimtrace" slim -q --root "$work/full" --out "$work/static" --entry bash) >"$work/log" 2>&1 ||
		fail "a plan without runs needs namespaces: $(tail -n 1 "$work/log")"
	[[ -x $work/static/usr/bin/bash ]] || fail "a plan without runs wrote no program"
fi
echo ok
