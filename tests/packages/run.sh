#!/bin/bash
# make check-packages: builds the packages twice, looks at them, and uses them in machines of their own (yum.sh, boot.sh).
# One line for each thing that holds; the first that does not ends it. Needs root; the base system is kept in build/fixtures.
set -u
cd "$(dirname "$0")/../.."
. tests/packages/lib.sh
base_root
# Always the same place, for the sake of compiler caches; a run that was killed may have left something there.
WORK=$PWD/build/packages
mkdir -p build
exec 8>build/packages.lock
flock 8
rm -rf "$WORK"
cleanup() {
	gpgconf --homedir "$WORK/other-key" --kill gpg-agent 2>/dev/null
	gpgconf --homedir "$WORK/top/test-key" --kill gpg-agent 2>/dev/null
	rm -rf "$WORK"
}
trap cleanup EXIT
mkdir -p "$WORK/srv"

# ---- Building --------------------------------------------------------------------------------------------------------------
rpm-specs/build-rpms.sh --top "$WORK/top" --keep >"$WORK/log" 2>&1 || { tail -n 30 "$WORK/log"; fail "make rpms"; }
rpms=$WORK/top/RPMS
# Elsewhere, out of the source package alone, with another mask, zone and language, compiled and not out of a cache.
(umask 077 && export CCACHE_DISABLE=1 && SOURCE_DATE_EPOCH=$(rpm -qp --nosignature --qf '%{BUILDTIME}' "$WORK"/top/SRPMS/*.src.rpm) TZ=Asia/Shanghai LANG=C \
	rpm-specs/build-rpms.sh --top "$WORK/an/other/folder" --srpm "$(echo "$WORK"/top/SRPMS/*.src.rpm)" >"$WORK/log" 2>&1) ||
	{ tail -n 30 "$WORK/log"; fail "the source package does not rebuild"; }
(umask 077 && rpm-specs/build-rpms.sh --top "$WORK/source" --source >"$WORK/log" 2>&1) || { cat "$WORK/log"; fail "make rpms --source"; }
cmp "$WORK"/top/SRPMS/*.src.rpm "$WORK"/source/SRPMS/*.src.rpm || fail "two source packages of one tree differ"
diff <(cd "$rpms" && find . -name '*.rpm' | sort) <(cd "$WORK/an/other/folder/RPMS" && find . -name '*.rpm' | sort) ||
	fail "the source package gives other packages"
while read -r p; do
	cmp "$rpms/$p" "$WORK/an/other/folder/RPMS/$p" || fail "$p: two builds differ"
done < <(cd "$rpms" && find . -name '*.rpm')
ok "two builds, one of them out of the source package, give the same bytes: $(find "$rpms" -name '*.rpm' | wc -l) packages"
rm -rf "$WORK/an" "$WORK/source"

# ---- What is in them -------------------------------------------------------------------------------------------------------
package() { # NAME: its file
	compgen -G "$rpms/*/$1-[0-9]*.rpm" | grep -v -- -debug
}
query() { # NAME FORMAT...
	rpm -qp --nosignature "${@:2}" "$(package "$1")"
}
packages=(ocai-engine ocai-model-mini ocai-agent oc-slimtrace oc-flip)
for p in "${packages[@]}"; do
	[[ -n $(package "$p") ]] || fail "no package $p"
	[[ $(query "$p" --licensefiles) == */LICENSE ]] || fail "$p: no licence"
	[[ -n $(query "$p" --changelog) ]] || fail "$p: no changelog"
	requires=$(query "$p" --requires | grep -vE '^(rpmlib|rtld|config)\(|\.so(\.[0-9]+)*\(|^/bin/sh$|^ocai-(engine|model-mini)$')
	[[ -z $requires ]] || fail "$p requires $requires"
	query "$p" --requires --recommends | grep -iE 'cuda|nvidia|hip|rocm|amd' && fail "$p requires a vendor's library"
done
smaller() { # NAME BYTES
	local size
	size=$(stat -c %s "$(package "$1")")
	((size <= $2)) || fail "$1: $size bytes, allowed $2"
	sizes+=" $1 $size"
}
sizes=
smaller ocai-engine 5000000
smaller ocai-agent 1500000
smaller oc-flip 1500000
smaller oc-slimtrace 1000000
ok "licences, changelogs, sonames alone are required;$sizes bytes"

twice=$(for p in "${packages[@]}"; do
	rpm -qp --nosignature --qf '[%{FILEMODES:perms} %{FILENAMES}\n]' "$(package "$p")" | sed -n 's/^[^d][^ ]* //p'
done | sort | uniq -d)
[[ -z $twice ]] || fail "in two packages: $twice"
# Everything that make install puts anywhere, compressed or not.
make --no-print-directory -s -C "$WORK"/top/BUILD/ocai-* -o all -o man NVCC= HIP_CXX= install DESTDIR="$WORK/installed" >"$WORK/log" 2>&1 || { tail -n 5 "$WORK/log"; fail "make install"; }
missing=$(comm -23 <(find "$WORK/installed" -type f -printf '/%P\n' | sort) \
	<(for p in "${packages[@]}"; do query "$p" -l; done | sed 's,\(/man/.*\)\.gz$,\1,' | sort -u))
[[ -z $missing ]] || fail "in no package: $missing"
ok "every file belongs to one package"

# Libraries that programs open when they need them are seen by no generator. Those with a soname of one library, that is:
# librpm is tried by several, and the driver's is there or not.
for p in ocai-engine:ocai-engine ocai-agent:ocai oc-slimtrace:slimtrace oc-flip:flip; do
	program=$WORK/top/BUILD/ocai-*/build/release/bin/${p#*:}
	for so in $(strings $program | grep -xE 'lib(curl|archive|systemd|expat)\.so\.[0-9]+' | sort -u); do
		query "${p%:*}" --requires --recommends | grep -qF "$so(" || fail "${p%:*} does not name $so, which ${p#*:} opens"
	done
done
for p in ocai-engine:ocai-engine ocai-agent:ocai oc-slimtrace:slimtrace oc-flip:flip; do
	(mkdir -p "$WORK/x" && cd "$WORK/x" && for f in "$rpms"/*/"${p%:*}"-[0-9]*.rpm "$rpms"/*/"${p%:*}"-debuginfo-*.rpm; do
		rpm2cpio "$f" | cpio -idm --quiet 2>/dev/null
	done)
	id() { readelf -n "$1" 2>/dev/null | sed -n 's/.*Build ID: //p'; }
	debug=$(echo "$WORK/x/usr/lib/debug/usr/bin/${p#*:}"-[0-9]*.debug)
	[[ -n $(id "$debug") && $(id "$debug") == "$(id "$WORK/x/usr/bin/${p#*:}")" ]] || fail "${p%:*}-debuginfo is of another program"
	readelf -S "$debug" | grep -q '\.debug_info' || fail "${p%:*}-debuginfo holds no debug information"
	readelf -S "$WORK/x/usr/bin/${p#*:}" | grep -q '\.debug_info' && fail "${p%:*} holds debug information"
done
rpm -qlp --nosignature "$rpms"/*/ocai-debugsource-*.rpm | grep -q '/engine/cmd/main\.c$' || fail "no sources in debugsource"
ok "what is opened at run time is named; debuginfo fits"

if command -v rpmlint >/dev/null; then
	XDG_CONFIG_HOME=$WORK rpmlint -c rpm-specs/rpmlint.toml "$WORK"/top/SRPMS/*.rpm "$rpms"/*/*.rpm rpm-specs/ocai.spec >"$WORK/log" 2>&1
	grep -qE ' 0 errors, 0 warnings' "$WORK/log" || { grep -E '^[^ ]+: [EW]:|Traceback' "$WORK/log" | head -n 30; fail "rpmlint: $(tail -n 1 "$WORK/log")"; }
	ok "rpmlint has nothing to say"
else
	echo "skipped: rpmlint is not installed"
fi

# ---- Repositories ----------------------------------------------------------------------------------------------------------
repo() { # NAME: of what is in $rpms now
	rpm-specs/build-repo.sh --top "$WORK/top" --out "$WORK/srv/$1" >"$WORK/log" 2>&1 || { cat "$WORK/log"; fail "make repo"; }
}
repo release1
cp "$(package ocai-agent)" "$WORK/unsigned.rpm"
rpm-specs/build-rpms.sh --top "$WORK/top" --again --release 2 >"$WORK/log" 2>&1 || { tail -n 30 "$WORK/log"; fail "a second release"; }
repo release2
rm -rf "$WORK/top/BUILD"

# What an attacker can do without the key: change bytes, make metadata anew, sign with a key of his own.
metadata() { # NAME: anew, signed by the real key
	rm -rf "$WORK/srv/$1/repodata"
	createrepo_c --quiet --no-database "$WORK/srv/$1" >/dev/null
	sign_metadata "$1"
}
sign_metadata() {
	gpg --batch --homedir "$WORK/top/test-key" --armor --detach-sign "$WORK/srv/$1/repodata/repomd.xml" 2>/dev/null || fail "gpg"
}
change() { # FILE OFFSET
	printf '\xa5\x5a\xa5' | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}
for bad in metadata unsigned-metadata payload header unsigned-package other-key; do
	mkdir "$WORK/srv/bad-$bad"
	cp -a "$WORK"/srv/release1/. "$WORK/srv/bad-$bad"
	agent=$(echo "$WORK/srv/bad-$bad"/ocai-agent-[0-9]*.rpm)
	case $bad in
	metadata) echo >>"$WORK/srv/bad-$bad/repodata/repomd.xml" ;;
	unsigned-metadata) rm "$WORK/srv/bad-$bad/repodata/repomd.xml.asc" ;;
	payload) change "$agent" $(($(stat -c %s "$agent") - 5000)) ;;
	header) change "$agent" 9000 ;;
	unsigned-package) cp "$WORK"/unsigned.rpm "$agent" && metadata "bad-$bad" ;;
	other-key)
		mkdir -m 700 "$WORK/other-key"
		gpg --batch --homedir "$WORK/other-key" --passphrase '' --quick-gen-key other rsa3072 sign never 2>/dev/null || fail "gpg"
		rpmsign -D "__gpg $(command -v gpg)" -D "_gpg_path $WORK/other-key" -D "_gpg_name other" --resign "$agent" >/dev/null 2>&1 || fail "rpmsign"
		metadata "bad-$bad"
		;;
	esac
done

# ---- Machines --------------------------------------------------------------------------------------------------------------
in_machine "$WORK/machine" yum.sh || fail "see above"
bash tests/packages/boot.sh "$WORK"
case $? in
0) ;;
77) echo "skipped: the services under systemd" ;;
*) fail "see above" ;;
esac
echo "check-packages: passed"
