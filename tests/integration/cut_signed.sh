#!/bin/bash
# Packages of a repository are checked against the keys given: signed by one of them or refused, whatever is wrong with them;
# the checksums of the metadata hold always.
set -u
. "$(dirname "$0")/slim/repo.sh"
slim_repo
for tool in gpg rpmsign; do
	command -v $tool >/dev/null || skip "$tool is missing: packages cannot be signed"
done
work=$(mktemp -d)
trap 'for home in key other; do gpgconf --homedir "$work/$home" --kill gpg-agent; done 2>/dev/null; rm -rf "$work"' EXIT
mkdir "$work/repo"
cp "$REPO"/{filesystem,libc6,busybox,libgcc-s1,gcc-12-base,dash,debianutils}-[0-9]*.rpm "$work/repo" || fail "packages are missing"

# make_key HOME ALGORITHM: a key without a passphrase; HOME.asc is the public one.
make_key() {
	mkdir -m 700 "$work/$1"
	gpg --batch --homedir "$work/$1" --passphrase '' --quick-gen-key "$1 (test)" "$2" sign never 2>"$work/log" || fail "gpg: $(tail -n 1 "$work/log")"
	gpg --batch --homedir "$work/$1" --armor --export >"$work/$1.asc" 2>/dev/null
}
make_key key rsa3072
make_key other rsa2048
sign() { # HOME PACKAGE...
	local home=$1
	shift
	GNUPGHOME=$work/$home rpmsign --define "__gpg $(command -v gpg)" --define "_gpg_path $work/$home" --define "_gpg_name $home (test)" \
		--addsign "$@" >"$work/log" 2>&1 || fail "rpmsign: $(tail -n 2 "$work/log")"
}
publish() { # the metadata anew, signed by $1 when it is given
	rm -rf "$work/repo/repodata"
	createrepo_c --quiet --no-database "$work/repo" >"$work/log" 2>&1 || fail "createrepo_c: $(tail -n 1 "$work/log")"
	[[ -z ${1:-} ]] || gpg --batch --homedir "$work/$1" --armor --detach-sign "$work/repo/repodata/repomd.xml" 2>"$work/log" || fail "gpg: $(cat "$work/log")"
}
cut() { rm -rf "$work/out"; "$SLIMTRACE" cut --out "$work/out" /bin/busybox "$@" >"$work/log" 2>"$work/errors"; }
takes() { cut "$@" || fail "cut $*: $(tail -n 1 "$work/errors")"; }
refuses() { # PATTERN ARGUMENT...
	local pattern=$1
	shift
	cut "$@" && fail "cut $* is taken"
	grep -qE -- "$pattern" "$work/errors" || fail "cut $*: $(tail -n 1 "$work/errors"), expected $pattern"
	[[ ! -e $work/out ]] || fail "cut $*: something was written"
}
key=(--gpg-key "$work/key.asc")

# Nothing is signed: said without keys, silent when that is wanted, refused with keys.
publish
takes --repo "$work/repo"
grep -q 'signatures of packages are not checked' "$work/errors" || fail "it is not said that signatures are not checked"
takes --repo "$work/repo" --no-gpg
[[ ! -s $work/errors ]] || fail "--no-gpg is not silent: $(cat "$work/errors")"
cp -a "$work/out" "$work/unsigned"
refuses 'is not signed' --repo "$work/repo" "${key[@]}"

# Signed: taken with the key, by repository and by file; the root is the same.
sign key "$work"/repo/*.rpm
publish key
takes --repo "$work/repo" "${key[@]}" --json
grep -q '"signatures": *"checked"' "$work/log" || fail "--json does not tell that signatures were checked"
[[ ! -s $work/errors ]] || fail "words about signatures that are good: $(cat "$work/errors")"
diff -r --no-dereference "$work/unsigned/usr" "$work/out/usr" || fail "a signed repository makes another root"
takes --rpm "$work/repo" "${key[@]}"
cat "$work/other.asc" "$work/key.asc" >"$work/both.asc"
takes --repo "$work/repo" --gpg-key "$work/both.asc"
gpg --dearmor <"$work/key.asc" >"$work/key.gpg"
takes --repo "$work/repo" --gpg-key "$work/key.gpg"
takes --repo "$work/repo" --gpg-key "$work/other.asc" "${key[@]}"
takes --repo "$work/repo" --headers-only "${key[@]}"
"$SLIMTRACE" slices --repo "$work/repo" "${key[@]}" -o "$work/slices" || fail "slices with a key"
takes --repo "$work/repo" --rpmdb signed "${key[@]}"
slim_rpm "$work/out" --define '_pkgverify_level none' -q --qf '%{RSAHEADER:pgpsig}\n' busybox | grep -q 'Key ID' || fail "--rpmdb signed loses the signature"

# By another key; one package among many; no key at all in the file.
refuses 'is signed by none of the keys given' --rpm "$work/repo" --gpg-key "$work/other.asc"
refuses 'repomd.xml: is signed by none' --repo "$work/repo" --gpg-key "$work/other.asc"
cp "$work"/repo/libc6-*.rpm "$work/good.rpm"
sign other "$work"/repo/libc6-*.rpm
publish key
refuses 'libc6-.*rpm: is signed by none of the keys given \(.*Key ID' --repo "$work/repo" "${key[@]}"
takes --repo "$work/repo" --no-gpg
cp "$work/good.rpm" "$work"/repo/libc6-*.rpm
publish key
takes --repo "$work/repo" "${key[@]}"
echo none >"$work/none.asc"
refuses 'none.asc: holds no public key' --repo "$work/repo" --gpg-key "$work/none.asc"
refuses 'No such file' --repo "$work/repo" --gpg-key "$work/nowhere"
refuses 'contradict' --repo "$work/repo" "${key[@]}" --no-gpg
refuses 'no longer signed' --root "$work/unsigned" "${key[@]}"

# Changed bytes: in the header, in the payload, in a package that the metadata know another checksum of, in the metadata.
library=$(echo "$work"/repo/libc6-*.rpm)
change() { # FILE OFFSET
	printf '\xa5\x5a\xa5' | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}
size=$(stat -c %s "$library")
for at in 8000 $((size - 3000)); do
	change "$library" $at
	refuses 'libc6-.*(checksum|digest|wrong|is not what|broken|decompress|Invalid|cut short|corrupt|header|differ)' --rpm "$work/repo" "${key[@]}"
	refuses 'libc6-' --repo "$work/repo" "${key[@]}"
	refuses 'libc6-' --repo "$work/repo" --no-gpg
	cp "$work/good.rpm" "$library"
done
takes --repo "$work/repo" "${key[@]}"
sed -i 's/busybox/busyboy/' "$work/repo/repodata/repomd.xml"
echo >>"$work/repo/repodata/repomd.xml"
refuses 'repomd.xml: the signature is wrong' --repo "$work/repo" "${key[@]}"
publish key
primary=$(echo "$work"/repo/repodata/*-primary.xml.*)
echo >>"$primary"
refuses 'primary.xml' --repo "$work/repo" --no-gpg
echo ok
