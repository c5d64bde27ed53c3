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

# All files of each package, the absent ones marked; rpm -V is clean, requirements included.
cut --rpmdb marked --out "$work/marked" "${requests[@]}"
slim_rpm "$work/marked" -Va || fail "rpm -Va on the marked database"
slim_rpm "$work/marked" -qa --qf '%{NAME}\n' | sort >"$work/names"
sed -n 's/^package\t\([^\t]*\).*/\1/p' "$work/marked/usr/share/slimtrace/manifest" | sort | cmp - "$work/names" ||
	fail "manifest and database name other packages"
grep '^/' "$work/marked/usr/share/slimtrace/manifest" | while read -r path; do
	[[ -e $work/marked$path || -L $work/marked$path ]] || echo "$path"
done | grep . && fail "the manifest names files that are not there"
states() { # what is said of each file, against what is there; %ghost is "normal", there or not
	slim_rpm "$1" -qas | sed 's/ *\(\/.*\)/\t\1/' | while IFS=$'\t' read -r state path; do
		[[ -e $1$path || -L $1$path ]] && is=normal || is='not installed'
		[[ $state == "$is" ]] || echo "$path is told as $state"
	done
}
[[ -z $(states "$work/marked") ]] || fail "marked: $(states "$work/marked" | head -n 3)"
slim_rpm "$work/marked" -qs bash | grep -q '^not installed  */usr/share/doc/bash' || fail "marked: state of the documentation"
[[ $(slim_rpm "$work/marked" -ql bash | sort) == $(rpm -qpl --nosignature "$REPO"/bash-5*.rpm | sort) ]] || fail "marked: files were lost"
for name in $(cat "$work/names"); do
	what='%{NAME} %{EVR} %{ARCH} %{SOURCERPM} %{LICENSE} %{VENDOR} %{MODULARITYLABEL} %{SIGMD5}'
	[[ $(slim_rpm "$work/marked" -q --qf "$what" "$name") == $(rpm -qp --nosignature --qf "$what" "$REPO/$name"-[0-9]*.rpm) ]] ||
		fail "marked: what scanners read of $name differs"
done
[[ $(slim_rpm "$work/marked" -qf /usr/bin/python3.11 --qf '%{NAME}') == python3.11-minimal ]] || fail "rpm -qf"
slim_rpm "$work/marked" -qf /usr/share/doc/bash >/dev/null && fail "rpm -qf knows an owner of what is not there"
python3 - "$work/marked" <<'PY' || fail "marked: the index of folders is not that of the folders in which files are"
import os, sqlite3, sys
root = sys.argv[1]
db = sqlite3.connect(root + "/var/lib/rpm/rpmdb.sqlite")
told = {key for key, in db.execute("SELECT key FROM Dirnames")}
sys.exit("/usr/bin/" not in told or not all(os.path.isdir(root + key) for key in told))
PY
[[ $(slim_rpm "$work/marked" -q --whatprovides 'libssl.so.3()(64bit)' --qf '%{NAME}') == libssl3 ]] || fail "rpm --whatprovides"
slim_rpm "$work/marked" -q --requires libc6 | grep -q libgcc-s1 && fail "marked: an unmet requirement of libc6 is told as one"
slim_rpm "$work/marked" -q --recommends libc6 | grep -qx libgcc-s1 || fail "marked: an unmet requirement of libc6 is lost"
slim_rpm "$work/marked" -q --whatrecommends libgcc-s1 | grep -q '^libc6-' || fail "marked: rpm --whatrecommends"
slim_rpm "$work/marked" -q --requires curl | grep -q 'libcurl.so.4' || fail "marked: a met requirement is lost"
cp -a "$work/marked" "$work/broken"
rm "$work/broken/usr/bin/bash"
echo x >>"$work/broken/usr/bin/curl"
slim_rpm "$work/broken" -V bash | grep -q 'missing.*/usr/bin/bash' || fail "marked: a file that is gone is not told"
slim_rpm "$work/broken" -V curl | grep -q '^S.5....T. .*/usr/bin/curl' || fail "marked: a file that was changed is not told"

# Earlier times than the packages': the database tells them.
SOURCE_DATE_EPOCH=1000000000 cut --out "$work/old" "${requests[@]}"
[[ $(stat -c %Y "$work/old/usr/bin/bash") == 1000000000 ]] || fail "times after SOURCE_DATE_EPOCH in a root"
slim_rpm "$work/old" -Va || fail "rpm -Va after SOURCE_DATE_EPOCH"
touch -d @1000000001 "$work/old/usr/bin/bash"
[[ $(slim_rpm "$work/old" -V bash) == *T*/usr/bin/bash ]] || fail "a file with another time is not told"

# Every package by itself.
for rpm in "$REPO"/*.rpm; do
	name=$(rpm -qp --nosignature --qf '%{NAME}' "$rpm")
	rm -rf "$work/single"
	cut --out "$work/single" --ignore-missing "$name"
	slim_rpm "$work/single" -Va || fail "$name: rpm -Va: $(slim_rpm "$work/single" -Va)"
done

# rpm goes on from there: packages come, come back whole, go with what is there of them.
if ((EUID == 0)); then
	cp -a "$work/marked" "$work/layer"
	install=(--noscripts --notriggers --nosignature)
	slim_rpm "$work/layer" -i --nodeps "${install[@]}" "$REPO"/dash-*.rpm >"$work/log" 2>&1 || fail "rpm -i on a marked root: $(cat "$work/log")"
	slim_rpm "$work/layer" -U --replacepkgs --nodeps "${install[@]}" "$REPO"/bash-5*.rpm >"$work/log" 2>&1 || fail "rpm -U on a marked root: $(cat "$work/log")"
	slim_rpm "$work/layer" -qs bash | grep '^not installed' && fail "files of a package that came back whole are told absent"
	slim_rpm "$work/layer" -V --nodeps bash dash || fail "rpm -V of what was installed on a marked root"
	slim_rpm "$work/layer" -e --nodeps --noscripts --notriggers curl >"$work/log" 2>&1 || fail "rpm -e on a marked root: $(cat "$work/log")"
	[[ ! -e $work/layer/usr/bin/curl ]] || fail "rpm -e left the program"
	slim_rpm "$work/layer" --rebuilddb 2>"$work/log" || fail "rpm --rebuilddb on a marked root: $(cat "$work/log")"
	[[ $(slim_rpm "$work/layer" -qa | wc -l) == $(wc -l <"$work/names") ]] || fail "rpm --rebuilddb lost packages"
fi

# The short database: exactly the files that are there.
cut --rpmdb short --out "$work/short" "${requests[@]}"
slim_rpm "$work/short" -Va || fail "rpm -Va on the short database"
slim_rpm "$work/short" -qla | grep -v '^(contains no files)$' | while read -r path; do
	[[ -e $work/short$path || -L $work/short$path ]] || echo "$path"
done >"$work/lies"
[[ ! -s $work/lies ]] || fail "the database names files that are not there: $(head -n 3 "$work/lies")"
slim_rpm "$work/short" -qa --qf '%{NAME}\n' | sort | cmp - "$work/names" || fail "short: other packages"
# Its descriptions tell the others: all that the packages have, %ghost aside, and that is not there; no more, no less.
for name in $(cat "$work/names"); do
	slim_rpm "$work/short" -q --qf '%{DESCRIPTION}' "$name" >"$work/told"
	rpm -qp --nosignature --qf '[%{FILEFLAGS:fflags}\t%{FILENAMES}\n]' "$REPO/$name"-[0-9]*.rpm >"$work/listed"
	python3 - "$work/told" "$work/listed" "$work/short" <<'PY' || fail "short: what is told of $name: $(head -c 500 "$work/told")"
import os, re, sys
told, listed, root = sys.argv[1:]
files = [l.rstrip("\n").split("\t") for l in open(listed)]
files = [path for flags, path in files if "g" not in flags]
absent = {path for path in files if not os.path.lexists(root + path)}
found, lines = set(), open(told).read().split("\n")
for line in lines[1:]:
    folder, *names = [re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), word) for word in line.split(" ")]
    for name in names:
        if name.endswith("/"):
            found |= {path for path in files if (path + "/").startswith(folder + name)}
        else:
            found.add(folder + name)
first = f"{len(absent)} of {len(files)} files were left out:" if absent else "(none)"
sys.exit(found != absent or lines[0] != first)
PY
done

# The signed database: headers as they were signed, absent files "not installed".
cut --rpmdb signed --out "$work/signed" "${requests[@]}"
slim_rpm "$work/signed" -qa --qf '%{NAME}\n' | sort | cmp - "$work/names" || fail "signed: other packages"
slim_rpm "$work/signed" -Va --nodeps || fail "rpm -Va --nodeps on the signed database"
[[ -z $(states "$work/signed") ]] || fail "signed: $(states "$work/signed" | head -n 3)"
[[ $(slim_rpm "$work/signed" -ql bash | wc -l) == $(rpm -qpl --nosignature "$REPO"/bash-5*.rpm | wc -l) ]] || fail "signed: files were lost"

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

	# Variants by processor: told as ldconfig tells them, and taken by the loader.
	libs=usr/lib/x86_64-linux-gnu
	cp -a "$work/short" "$work/variants"
	for level in v4 v2 v3; do
		mkdir -p "$work/variants/$libs/glibc-hwcaps/x86-64-$level"
		cp -a "$work/variants/$libs"/lib{tinfo,z}.so.* "$work/variants/$libs/glibc-hwcaps/x86-64-$level"
	done
	"$SLIMTRACE" slim -q --root "$work/variants" --keep / --keep '/**' --set rpmdb=keep --out "$work/with" >"$work/log" 2>&1 ||
		fail "slim with variants: $(tail -n 1 "$work/log")"
	told() { /sbin/ldconfig -r "$1" -p | sed -n 's/^\t\(.*)\) => .*/\1/p'; }
	told "$work/with" >"$work/ours"
	cp -a "$work/with" "$work/theirs-with"
	/sbin/ldconfig -r "$work/theirs-with" || fail "ldconfig"
	told "$work/theirs-with" | diff "$work/ours" - >"$work/diff" || fail "variants differ from ldconfig's: $(head -n 5 "$work/diff")"
	[[ $(grep -c 'libz.so.1 (libc6,x86-64, hwcap: "x86-64-v[234]")' "$work/ours") == 3 ]] || fail "variants: $(cat "$work/ours")"
	slim_root "$work/with" /usr/bin/python3 -c 'import zlib' || fail "a root with variants does not run"
	if /lib64/ld-linux-x86-64.so.2 --help 2>/dev/null | grep -q 'x86-64-v2 (supported'; then
		LD_DEBUG=libs slim_root "$work/with" /bin/bash -c : 2>&1 | grep -q 'calling init: .*/glibc-hwcaps/x86-64-v[234]/libtinfo' ||
			fail "the loader does not take a variant by the cache"
	fi
fi

# An installed root as input: by its database, without the packages.
cut --out "$work/root" bash coreutils_bins /bin/sh --generate tmp
"$SLIMTRACE" cut --root "$work/root" --out "$work/again" /bin/bash /usr/bin/env >"$work/log" 2>&1 || fail "cut --root: $(tail -n 1 "$work/log")"
[[ -x $work/again/usr/bin/bash && -x $work/again/usr/bin/env && ! -e $work/again/usr/bin/ls ]] || fail "cut --root: other files than asked for"
cmp "$work/again/usr/bin/bash" "$work/root/usr/bin/bash" || fail "cut --root: other bytes"
slim_rpm "$work/again" -qa --qf '%{NAME}\n' | sort | tr '\n' ' ' | grep -qx 'bash coreutils filesystem libc6 libtinfo6 ' || fail "cut --root: $(slim_rpm "$work/again" -qa)"

# What is marked as absent is not to be had any more.
"$SLIMTRACE" cut --root "$work/again" --out "$work/none" /usr/bin/ls >"$work/log" 2>&1 && fail "cut --root: an absent file was found"
grep -q '/usr/bin/ls: no package has this path' "$work/log" || fail "cut --root of an absent file: $(tail -n 1 "$work/log")"

# The same of a root that rpm itself made: headers stay the ones that were signed.
mkdir -p "$work/rpm/var/lib/rpm"
slim_rpm "$work/rpm" -i --nodeps --noscripts --nosignature "$REPO"/{filesystem,libc6,busybox}-[0-9]*.rpm >"$work/log" 2>&1 || fail "rpm -i: $(cat "$work/log")"
for kind in marked signed short; do
	"$SLIMTRACE" cut --root "$work/rpm" --rpmdb $kind --out "$work/$kind-again" /bin/busybox >"$work/log" 2>&1 || fail "cut --root --rpmdb $kind: $(tail -n 1 "$work/log")"
	[[ $kind == signed ]] && options=--nodeps || options=
	slim_rpm "$work/$kind-again" -Va $options || fail "cut --root --rpmdb $kind: rpm -Va"
	[[ $(slim_rpm "$work/$kind-again" -qa | wc -l) == 3 ]] || fail "cut --root --rpmdb $kind: $(slim_rpm "$work/$kind-again" -qa)"
done
for root in signed signed-again; do
	slim_rpm "$work/$root" -qvv libc6 2>&1 | grep -q 'Header SHA256 digest: OK' || fail "$root: the header is not the signed one any more"
done
echo ok
