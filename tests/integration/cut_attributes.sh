#!/bin/bash
# What a package can say of a file arrives in a cut root: modes, owners, capabilities, hard links, empty folders, links,
# %ghost and %config; rules by hand; needs that nobody can meet; a cut that is interrupted.
set -u
. "$(dirname "$0")/slim/repo.sh"
command -v rpmbuild >/dev/null || skip "rpmbuild is missing: no packages of our own"
((EUID == 0)) || skip "not root: owners cannot be set"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# build NAME: a package from $work/tree and the spec's body on standard input.
build() {
	{ printf 'Name: %s\nVersion: 1\nRelease: 1\nSummary: test\nLicense: none\nBuildArch: noarch\n' "$1"; cat; } >"$work/$1.spec"
	SOURCE_DATE_EPOCH=1600000000 rpmbuild -bb --quiet --nodeps -D "_topdir $work/top" -D "_rpmdir $work/rpms" -D "src $work/tree" \
		-D '_rpmfilename %%{NAME}.rpm' -D 'debug_package %{nil}' -D '__os_install_post %{nil}' -D "_buildhost b" \
		-D "_binary_payload ${payload:-w3.zstdio}" -D '__brp_mangle_shebangs %{nil}' "$work/$1.spec" >"$work/log" 2>&1 || fail "rpmbuild: $(tail -n 5 "$work/log")"
}
cut() { "$SLIMTRACE" cut --rpm "$work/rpms" "$@" >"$work/log" 2>&1; }

mkdir -p "$work"/tree/{usr/bin,etc,var/lib/box/empty,usr/share/box}
echo one >"$work/tree/usr/bin/box"
echo linked >"$work/tree/usr/share/box/a"
ln "$work/tree/usr/share/box/a" "$work/tree/usr/share/box/b"
ln "$work/tree/usr/share/box/a" "$work/tree/usr/share/box/c"
ln -s ../share/box/a "$work/tree/usr/bin/alias"
ln -s /nowhere "$work/tree/usr/bin/dangling"
echo 'key = value' >"$work/tree/etc/box.conf"
echo space >"$work/tree/usr/share/box/with space"
truncate -s 3M "$work/tree/usr/share/box/large"
: >"$work/tree/usr/share/box/nothing"
printf '#!/usr/bin/interpreter -x\n' >"$work/tree/usr/bin/script"
body='%description
test
%install
cp -a %{src}/. %{buildroot}/
mkdir -p %{buildroot}/run/box
touch %{buildroot}/run/box/state
%files
%attr(4751,daemon,mail) %caps(cap_net_raw,cap_net_admin=ep) /usr/bin/box
%attr(0755,root,root) /usr/bin/script
/usr/bin/alias
/usr/bin/dangling
%config(noreplace) %attr(0640,root,daemon) /etc/box.conf
%dir %attr(2770,daemon,daemon) /var/lib/box
%dir %attr(1777,root,root) /var/lib/box/empty
%dir /usr/share/box
/usr/share/box/a
/usr/share/box/b
/usr/share/box/c
/usr/share/box/large
/usr/share/box/nothing
"/usr/share/box/with space"
%ghost %attr(0600,root,root) /run/box/state'
mkdir -p "$work/rpms"
chmod 755 "$work/tree/usr/bin/script"
build box <<<"%global __requires_exclude ^$
$body"
rm -rf "$work/tree"; mkdir -p "$work/tree/etc"
printf 'root:x:0:0::/:/bin/sh\ndaemon:x:1:1::/:/bin/false\n' >"$work/tree/etc/passwd"
printf 'root:x:0:\ndaemon:x:7:\nmail:x:8:\n' >"$work/tree/etc/group"
payload=w9.xzdio build setup <<<'%description
test
%install
cp -a %{src}/. %{buildroot}/
%files
/etc/passwd
/etc/group'

# A need that no package meets: the error names what and who.
cut --out "$work/root" box && fail "a missing interpreter is no error"
grep -q '/usr/bin/script (box) needs /usr/bin/interpreter .*no package has' "$work/log" || fail "missing: $(cat "$work/log")"
[[ ! -e $work/root ]] || fail "something was written in spite of the error"
cut --out "$work/root" --ignore-missing box || fail "--ignore-missing: $(cat "$work/log")"
grep -q 'needs are not met; the first: .*interpreter' "$work/log" || fail "--ignore-missing does not count"
rm -rf "$work/root"
cut --out "$work/root" --exclude '*/script' box setup || fail "--exclude: $(cat "$work/log")"
is() { [[ $2 == "$3" ]] || fail "$1: $2, expected $3"; }
cd "$work/root"
[[ ! -e usr/bin/script ]] || fail "--exclude left the file in"
is box "$(stat -c '%a %u:%g' usr/bin/box)" '4751 1:8'
is box.conf "$(stat -c '%a %u:%g' etc/box.conf)" '640 0:7'
is folder "$(stat -c '%a %u:%g' var/lib/box)" '2770 1:7'
is 'empty folder' "$(stat -c '%a %u:%g %F' var/lib/box/empty)" '1777 0:0 directory'
is 'hard links' "$(stat -c '%h' usr/share/box/a) $(stat -c %i usr/share/box/{a,b,c} | sort -u | wc -l) $(cat usr/share/box/c)" '3 1 linked'
is alias "$(readlink usr/bin/alias) $(readlink usr/bin/dangling)" '../share/box/a /nowhere'
is large "$(stat -c %s usr/share/box/large) $(cat 'usr/share/box/with space') $(stat -c %s usr/share/box/nothing)" '3145728 space 0'
[[ ! -e run/box/state ]] || fail "%ghost was made"
if command -v getfattr >/dev/null; then
	getfattr -n security.capability -e hex usr/bin/box 2>/dev/null | grep -q '0x0100000200300000' || fail "capabilities: $(getfattr -d -m - usr/bin/box)"
elif command -v getcap >/dev/null; then
	getcap usr/bin/box | grep -q 'cap_net_admin,cap_net_raw=ep\|cap_net_admin,cap_net_raw+ep' || fail "capabilities: $(getcap usr/bin/box)"
fi
cd - >/dev/null
slim_rpm "$work/root" -Va >"$work/verify" 2>&1 || fail "rpm -Va: $(cat "$work/verify")"

# Only one of the hard links, a tar, and an image.
cut --out "tar:$work/one.tar" /usr/share/box/b || fail "one link: $(cat "$work/log")"
tar -xOf "$work/one.tar" usr/share/box/b | grep -qx linked || fail "one hard link of a group has no bytes"
tar -tf "$work/one.tar" | grep -q 'box/a' && fail "a hard link that nobody asked for"

# Rules: keep, drop, move, add, need, generate.
cat >"$work/site.rules" <<'RULES'
# by hand
[box]
drop = */large
move = /etc/box.conf minimal
[box_minimal]
add = /usr/bin/box
need = /usr/share/box/a
generate = users
[/usr/bin/box]
need = /usr/share/box/nothing
RULES
rm -rf "$work/root"
cut --rules "$work/site.rules" --out "$work/root" box_minimal || fail "rules: $(cat "$work/log")"
is rules "$(cd "$work/root" && find . -type f ! -path './var/*' ! -path './usr/share/slimtrace/*' | sort | tr '\n' ' ')" \
	'./etc/box.conf ./etc/group ./etc/passwd ./usr/bin/box ./usr/share/box/a ./usr/share/box/nothing '
grep -qx 'daemon:x:1:1::/:/bin/false' "$work/root/etc/passwd" || fail "users: $(cat "$work/root/etc/passwd")"
"$SLIMTRACE" slices --rpm "$work/rpms" --rules "$work/site.rules" --list box | grep -q large && fail "a dropped file is listed"
echo 'keep x' >"$work/bad.rules"
cut --rules "$work/bad.rules" --out "$work/none" box && fail "bad rules pass"
grep -q 'bad.rules:1: ' "$work/log" || fail "bad rules: $(cat "$work/log")"

# Bytes that are not what the header says never become a file.
cp "$work/rpms/box.rpm" "$work/good.rpm"
size=$(stat -c %s "$work/rpms/box.rpm")
for at in 300 2000 $((size - 40)) $((size - 200)); do
	cp "$work/good.rpm" "$work/rpms/box.rpm"
	printf '\xff\x00\xff' | dd of="$work/rpms/box.rpm" bs=1 seek="$at" conv=notrunc status=none
	cmp -s "$work/good.rpm" "$work/rpms/box.rpm" && continue
	if cut --out "$work/changed" --exclude '*/script' box; then
		diff -r "$work/changed/usr" <(:) >/dev/null 2>&1
		cmp -s "$work/changed/usr/share/box/a" <(echo linked) || fail "changed bytes at $at became a file"
		rm -rf "$work/changed"
	fi
	[[ ! -e $work/changed ]] || fail "changed bytes at $at: half a root"
done
head -c $((size / 2)) "$work/good.rpm" >"$work/rpms/box.rpm"
cut --out "$work/changed" --exclude '*/script' box && fail "half a package passes"
cp "$work/good.rpm" "$work/rpms/box.rpm"

# Killed at any moment: all or nothing under the final name.
for delay in 0.01 0.03 0.06 0.1; do
	rm -rf "$work/killed"*
	timeout -s KILL "$delay" "$SLIMTRACE" cut --rpm "$work/rpms" --exclude '*/script' --out "$work/killed" box >/dev/null 2>&1
	[[ ! -e $work/killed || -e $work/killed/var/lib/rpm/rpmdb.sqlite ]] || fail "half a root after $delay s"
done
# Ctrl-C and SIGTERM leave nothing behind at all.
mkdir "$work/tmp"
for delay in 0.01 0.02 0.04 0.08; do
	rm -rf "$work/killed"*
	TMPDIR=$work/tmp timeout -s TERM "$delay" "$SLIMTRACE" cut --rpm "$work/rpms" --exclude '*/script' --out "$work/killed" box >/dev/null 2>&1
	compgen -G "$work/killed.part-*" && fail "SIGTERM after $delay s left a half root behind"
	compgen -G "$work/tmp/slimtrace-*" && fail "SIGTERM after $delay s left a spool behind: $(find "$work/tmp")"
done
# A folder that is in use is not touched.
mkdir -p "$work/full/x"
cut --out "$work/full" --exclude '*/script' box && fail "a folder with something in it was taken"
[[ -d $work/full/x ]] || fail "a folder in use was emptied"
echo ok
