#!/bin/bash
# ocai sys --updates against a root that real dnf filled: packages of one version installed, metadata of a newer one cached.
set -u
cd "$(dirname "$0")/../.."
ocai=$(realpath "${BUILD_DIR:-build/release}")/bin/ocai
[[ -x $ocai ]] || { echo "no $ocai"; exit 77; }
for tool in dnf rpmbuild createrepo_c modifyrepo_c python3; do
	command -v $tool >/dev/null || { echo "$tool is not here"; exit 77; }
done
((EUID == 0)) || { echo "dnf --installroot needs root"; exit 77; }
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
fail() { echo "FAILED: $*"; exit 1; }
export LC_ALL=C.UTF-8 HOME=$tmp/home
mkdir -p "$HOME" "$tmp/old" "$tmp/new" "$tmp/root"
echo '%_dbpath /var/lib/rpm' >"$HOME/.rpmmacros"

# package NAME EPOCH VERSION RELEASE FOLDER
package() {
	cat >"$tmp/p.spec" <<SPEC
Name: $1
Epoch: $2
Version: $3
Release: $4
Summary: a package of the test
License: none
BuildArch: noarch
%description
A package of the test.
%files
SPEC
	rpmbuild -bb --quiet --define "_topdir $tmp/build" --define "_rpmdir $tmp/$5" --define '_build_name_fmt %%{NAME}-%%{EPOCH}-%%{VERSION}-%%{RELEASE}.rpm' \
		"$tmp/p.spec" >"$tmp/log" 2>&1 || fail "rpmbuild: $(<"$tmp/log")"
}
package holes 0 1.0 1 old
package plain 0 2.9 1 old
package epochs 1 1.0 1 old
package same 0 5 1 old
package holes 0 1.0 2 new
package holes 0 1.0 10 new # newer than 2, as rpm compares
package plain 0 2.10 1 new
package epochs 0 9.0 1 new # a higher version of a lower epoch is older
package same 0 5 1 new
package stranger 0 1 1 new
cat >"$tmp/updateinfo.xml" <<'XML'
<?xml version="1.0" encoding="UTF-8"?>
<updates>
  <update from="t" status="final" type="security" version="1"><id>TEST-2026:1</id><title>holes: a &lt;hole&gt; closed</title><severity>Critical</severity>
    <pkglist><collection><package name="holes" version="1.0" release="2" epoch="0" arch="noarch"/></collection></pkglist></update>
  <update from="t" status="final" type="security" version="1"><id>TEST-2025:7</id><title>closed long ago</title><severity>Important</severity>
    <pkglist><collection><package name="holes" version="1.0" release="1" epoch="0" arch="noarch"/></collection></pkglist></update>
  <update from="t" status="final" type="bugfix" version="1"><id>TEST-2026:2</id><title>plain: 漏洞以外的修正</title>
    <pkglist><collection><package name="plain" version="2.10" release="1" epoch="0" arch="noarch"/></collection></pkglist></update>
</updates>
XML
createrepo_c -q "$tmp/old" && createrepo_c -q "$tmp/new" && modifyrepo_c "$tmp/updateinfo.xml" "$tmp/new/repodata" >"$tmp/log" 2>&1 || fail "createrepo_c: $(<"$tmp/log")"
dnf_in() { # REPOSITORY COMMAND...: dnf's cache goes into the root, as on a running system
	local repo=$1
	shift
	dnf -y -q --installroot="$tmp/root" --releasever=1 --repofrompath="$repo,file://$tmp/$repo" --repo="$repo" --nogpgcheck \
		--setopt=reposdir=/dev/null --setopt=cachedir="$tmp/root/var/cache/dnf" --setopt=keepcache=0 "$@" >"$tmp/log" 2>&1 || fail "dnf $*: $(<"$tmp/log")"
}
dnf_in old install holes plain epochs same
rm -rf "$tmp/root/var/cache/dnf"

out=$("$ocai" sys --updates --root "$tmp/root" --lang en) || fail "no metadata: status $?"
[[ $out == *"dnf makecache"* ]] || fail "without metadata: $out"

dnf_in new makecache
out=$("$ocai" sys --updates --root "$tmp/root" --json) || fail "status $?"
python3 - "$out" <<'PY' || fail "$out"
import json, sys
u = json.loads(sys.argv[1])["packages"]["updates"]
p = {x["name"]: x for x in u["packages"]}
assert u["count"] == 2 and set(p) == {"holes", "plain"}, u
assert [x["name"] for x in u["packages"]] == ["holes", "plain"], "the critical one first"
assert p["holes"]["installed"] == "1.0-1" and p["holes"]["available"] == "1.0-10", p
assert p["plain"]["available"] == "2.10-1", p
assert p["holes"]["severity"] == "critical" and p["plain"]["severity"] == "", p
assert [a["id"] for a in p["holes"]["advisories"]] == ["TEST-2026:1"], "the old advisory is not news"
assert p["holes"]["advisories"][0]["title"] == "holes: a <hole> closed"
assert (u["security"], u["critical"]) == (1, 1), u
assert u["download_bytes"] > 0 and u["repositories"][0]["id"] == "new", u
PY
out=$("$ocai" sys --updates --root "$tmp/root" --lang zh) || fail "status $?"
[[ $out == *"安全漏洞"* && $out == *holes*"critical"* ]] || fail "$out"

# Half a file: said, and what was read counts.
primary=$(ls "$tmp"/root/var/cache/dnf/new-*/repodata/*primary.xml*)
size=$(stat -c %s "$primary")
truncate -s $((size / 2)) "$primary"
out=$("$ocai" sys --updates --root "$tmp/root" --lang en) || fail "status $?"
[[ $out == *"cannot be read whole"* ]] || fail "a truncated file: $out"
