#!/bin/bash
# The package database, the manifest, ld.so.cache and the database of slices that cut makes: what rpm, sqlite and ldconfig
# read in them is what is in the root; same packages, same bytes.
set -u
. "$(dirname "$0")/slim/repo.sh"
slim_repo
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cut() {
	"$SLIMTRACE" cut --repo "$REPO" "$@" >"$work/log" 2>&1 || fail "cut $*: $(tail -n 1 "$work/log")"
}
requests=(/bin/bash curl_bins /usr/bin/python3 python:json)

# Twice the same, byte by byte, also from a database of slices; another time stamp is the only difference that one makes.
cut --out "tar:$work/one.tar" "${requests[@]}"
cut --out "tar:$work/two.tar" "${requests[@]}"
cmp "$work/one.tar" "$work/two.tar" || fail "two cuts differ"
"$SLIMTRACE" slices "$REPO" -o "$work/slices" || fail "slices"
head -n 1 "$work/slices" | grep -qx 'slimtrace-slices 1' || fail "slices: no version in the first line"
"$SLIMTRACE" slices --repo "$REPO" | cmp - "$work/slices" || fail "two databases of slices differ"
cut --slices "$work/slices" --out "tar:$work/three.tar" "${requests[@]}"
cmp "$work/one.tar" "$work/three.tar" || fail "a cut by a database of slices differs"
SOURCE_DATE_EPOCH=1000000000 cut --out "tar:$work/old.tar" "${requests[@]}"
tar -tvf "$work/old.tar" --utc | grep -v ' 2001-09-09 \| 2001-09-08 \| 2000-\| 19' | grep . && fail "times after SOURCE_DATE_EPOCH"

# As an image: the same digest each time.
cut --out "oci:$work/images:one" "${requests[@]}"
cut --out "oci:$work/images:two" --slices "$work/slices" "${requests[@]}"
[[ $(grep -o 'sha256:[0-9a-f]*' "$work/images/index.json" | sort -u | wc -l) == 1 ]] || fail "two images differ: $(cat "$work/images/index.json")"

# The short database: exactly the files that are there.
cut --out "$work/short" "${requests[@]}"
slim_rpm "$work/short" -Va || fail "rpm -Va on the short database"
slim_rpm "$work/short" -qla | grep -v '^(contains no files)$' | while read -r path; do
	[[ -e $work/short$path || -L $work/short$path ]] || echo "$path"
done >"$work/lies"
[[ ! -s $work/lies ]] || fail "the database names files that are not there: $(head -n 3 "$work/lies")"
[[ $(slim_rpm "$work/short" -qf /usr/bin/python3.11 --qf '%{NAME}') == python3.11-minimal ]] || fail "rpm -qf"
[[ $(slim_rpm "$work/short" -q --whatprovides 'libssl.so.3()(64bit)' --qf '%{NAME}') == libssl3 ]] || fail "rpm --whatprovides"
slim_rpm "$work/short" -qa --qf '%{NAME}\n' | sort >"$work/names"
sed -n 's/^package\t\([^\t]*\).*/\1/p' "$work/short/usr/share/slimtrace/manifest" | sort | cmp - "$work/names" ||
	fail "manifest and database name other packages"
grep '^/' "$work/short/usr/share/slimtrace/manifest" | while read -r path; do
	[[ -e $work/short$path || -L $work/short$path ]] || echo "$path"
done | grep . && fail "the manifest names files that are not there"

# The marked database: headers as they were signed, absent files "not installed".
cut --rpmdb marked --out "$work/marked" "${requests[@]}"
slim_rpm "$work/marked" -qa --qf '%{NAME}\n' | sort | cmp - "$work/names" || fail "marked: other packages"
slim_rpm "$work/marked" -Va --nodeps || fail "rpm -Va --nodeps on the marked database"
slim_rpm "$work/marked" -qs bash | grep -qx 'normal *\t*/usr/bin/bash\|normal  */usr/bin/bash' || fail "marked: state of /usr/bin/bash"
slim_rpm "$work/marked" -qs bash | grep -q '^not installed  */usr/share/doc/bash' || fail "marked: state of the documentation"
[[ $(slim_rpm "$work/marked" -ql bash | wc -l) == $(rpm -qpl --nosignature "$REPO"/bash-5*.rpm | wc -l) ]] || fail "marked: files were lost"
rm "$work/marked/usr/bin/bash"
slim_rpm "$work/marked" -V --nodeps bash | grep -q 'missing.*/usr/bin/bash' || fail "marked: a file that is gone is not told"

# What real ldconfig would have written: the same names, leading to the same files.
if command -v /sbin/ldconfig >/dev/null && ((EUID == 0)); then
	list() { /sbin/ldconfig -r "$1" -p | sed -n 's/^\t\(.*\) (.*) => \(.*\)/\1 \2/p' | while read -r name path; do
		echo "$name $(chroot_path "$1" "$path")"; done | sort; }
	chroot_path() { # follows links as if $1 were the root
		local path=$2 to i
		for ((i = 0; i < 20; i++)); do
			path=$(sed 's,^/lib/,/usr/lib/,; s,^/lib64/,/usr/lib64/,' <<<"$path")
			[[ -L $1$path ]] || break
			to=$(readlink "$1$path")
			[[ $to == /* ]] && path=$to || path=$(dirname "$path")/$to
		done
		echo "$path"
	}
	list "$work/short" >"$work/ours"
	cp -a "$work/short" "$work/theirs"
	/sbin/ldconfig -r "$work/theirs" || fail "ldconfig"
	list "$work/theirs" >"$work/wanted"
	diff "$work/ours" "$work/wanted" >"$work/diff" || fail "ld.so.cache differs from ldconfig's: $(head -n 5 "$work/diff")"
	[[ -s $work/ours ]] || fail "ld.so.cache is empty"
fi

# An installed root as input: by its database, without the packages.
cut --out "$work/root" bash coreutils_bins /bin/sh --generate tmp
"$SLIMTRACE" cut --root "$work/root" --out "$work/again" /bin/bash /usr/bin/env >"$work/log" 2>&1 || fail "cut --root: $(tail -n 1 "$work/log")"
[[ -x $work/again/usr/bin/bash && -x $work/again/usr/bin/env && ! -e $work/again/usr/bin/ls ]] || fail "cut --root: other files than asked for"
cmp "$work/again/usr/bin/bash" "$work/root/usr/bin/bash" || fail "cut --root: other bytes"
slim_rpm "$work/again" -qa --qf '%{NAME}\n' | sort | tr '\n' ' ' | grep -qx 'bash coreutils filesystem libc6 libtinfo6 ' || fail "cut --root: $(slim_rpm "$work/again" -qa)"

# The same of a root that rpm itself made: headers stay the ones that were signed.
mkdir -p "$work/rpm/var/lib/rpm"
slim_rpm "$work/rpm" -i --nodeps --noscripts --nosignature "$REPO"/{filesystem,libc6,busybox}-[0-9]*.rpm >"$work/log" 2>&1 || fail "rpm -i: $(cat "$work/log")"
for kind in marked short; do
	"$SLIMTRACE" cut --root "$work/rpm" --rpmdb $kind --out "$work/$kind-again" /bin/busybox >"$work/log" 2>&1 || fail "cut --root --rpmdb $kind: $(tail -n 1 "$work/log")"
	slim_rpm "$work/$kind-again" -Va --nodeps || fail "cut --root --rpmdb $kind: rpm -Va"
	[[ $(slim_rpm "$work/$kind-again" -qa | wc -l) == 3 ]] || fail "cut --root --rpmdb $kind: $(slim_rpm "$work/$kind-again" -qa)"
done
for root in marked marked-again; do
	slim_rpm "$work/$root" -qvv libc6 2>&1 | grep -q 'Header SHA256 digest: OK' || fail "$root: the header is not the signed one any more"
done
echo ok
