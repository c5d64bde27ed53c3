#!/bin/bash
# What cut makes in place of scriptlets: locales (a package's own files, else by the packages' localedef), bundles of
# certificates in the layouts of Debian and of Red Hat; by option and by rule.
set -u
. "$(dirname "$0")/slim/repo.sh"
slim_need_root
slim_repo
command -v openssl >/dev/null || skip "openssl is missing: no certificates to test with"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cut() { "$SLIMTRACE" cut --repo "$REPO" "$@" >"$work/log" 2>&1 || fail "cut $*: $(tail -n 1 "$work/log")"; }
refuses() { # WORDS ARGUMENT...
	local words=$1
	shift
	"$SLIMTRACE" cut --repo "$REPO" --out "$work/refused" "$@" >"$work/log" 2>&1 && fail "cut $* is taken"
	grep -q -- "$words" "$work/log" || fail "cut $*: $(tail -n 1 "$work/log")"
	[[ ! -e $work/refused ]] || fail "cut $*: something was written"
}

# C.UTF-8 is compiled in a package: its files, which the database knows.
cut --out "$work/c" /bin/bash --generate locale
slim_root "$work/c" /bin/bash -c 'LC_ALL=C.UTF-8; x=äöü; echo ${#x} ${x^^}' 2>&1 | grep -qx '3 ÄÖÜ' || fail "C.UTF-8 is not there"
slim_rpm "$work/c" -qf /usr/lib/locale/C.utf8/LC_CTYPE | grep -q '^libc-bin-' || fail "C.UTF-8 belongs to no package"
slim_rpm "$work/c" -Va || fail "rpm -Va with C.UTF-8"
cut --out "$work/dry" --dry-run /bin/bash --generate locale
grep -q '^/usr/lib/locale/C.utf8/LC_CTYPE.*generate C.UTF-8' "$work/log" || fail "the reason of C.UTF-8: $(grep LC_CTYPE "$work/log")"
cut --headers-only --out "$work/headers" /bin/bash --generate locale
cmp "$work/headers/usr/lib/locale/C.utf8/LC_CTYPE" "$work/c/usr/lib/locale/C.utf8/LC_CTYPE" || fail "C.UTF-8 of headers alone"

# The same by a rule.
printf '[bash_bins]\ngenerate = locale\n' >"$work/rules"
cut --rules "$work/rules" --out "$work/rule" bash_bins
diff -r "$work/rule/usr/lib/locale" "$work/c/usr/lib/locale" || fail "C.UTF-8 by a rule"

refuses 'locale de_DE.UTF-8: no package has it, or its source' /bin/bash --generate locale:de_DE.UTF-8
refuses 'no name of a locale' /bin/bash --generate locale:de_DE
refuses 'no name of a locale' /bin/bash --generate 'locale:../../etc.x'
refuses 'there is no "locales"' /bin/bash --generate locales

# Others from sources, by the packages' localedef: the same bytes each time.
make=$slim_tests/fixtures/make-rpm-repo
if "$make" --no-closure --cache "$slim_tests/../build/fixtures/debs" "$work/locales" locales >"$work/log" 2>&1; then
	names=locale:C.UTF-8,de_DE.UTF-8,ja_JP.EUC-JP,de_DE.ISO-8859-15@euro
	cut --rpm "$work/locales" --out "$work/named" /bin/bash /usr/bin/locale --generate $names
	cut --rpm "$work/locales" --out "tar:$work/one.tar" /bin/bash --generate $names
	cut --rpm "$work/locales" --out "tar:$work/two.tar" /bin/bash --generate $names
	cmp "$work/one.tar" "$work/two.tar" || fail "two localedefs differ"
	slim_rpm "$work/named" -Va || fail "rpm -Va with named locales"
	slim_root "$work/named" /bin/bash -c 'LC_ALL=de_DE.UTF-8; printf "%.2f\n" 1,5' 2>&1 | grep -qx '1,50' || fail "de_DE.UTF-8 is not there"
	have=$(slim_root "$work/named" /usr/bin/locale -a | tr '\n' ' ')
	[[ $have == 'C C.utf8 POSIX de_DE.iso885915@euro de_DE.utf8 ja_JP.eucjp ' ]] || fail "locale -a: $have"
	[[ ! -e $work/named/usr/bin/localedef && ! -e $work/named/usr/share/i18n ]] || fail "what made locales stayed"
	# an installed root has its own
	mkdir -p "$work/root/var/lib/rpm"
	slim_rpm "$work/root" -i --nodeps --noscripts --nosignature "$REPO"/{filesystem,libc6,libc-bin,bash,libtinfo6}-[0-9]*.rpm \
		"$work"/locales/locales-*.rpm >"$work/log" 2>&1 || fail "rpm -i: $(cat "$work/log")"
	"$SLIMTRACE" cut --root "$work/root" --out "$work/again" /bin/bash --generate locale:de_DE.UTF-8 >"$work/log" 2>&1 ||
		fail "cut --root --generate locale: $(tail -n 1 "$work/log")"
	diff -r "$work/again/usr/lib/locale/de_DE.utf8" "$work/named/usr/lib/locale/de_DE.utf8" || fail "locales of packages and of a root differ"
else
	echo "locales cannot be had: only compiled ones were tested"
fi

# Certificates as Debian's packages have them.
cut --out "$work/debian" /bin/bash --generate ca-bundle
bundle=$work/debian/etc/ssl/certs/ca-certificates.crt
[[ $(grep -c 'BEGIN CERTIFICATE' "$bundle") -gt 100 ]] || fail "ca-bundle: $(grep -c BEGIN "$bundle") certificates"
[[ ! -e $work/debian/etc/pki ]] || fail "ca-bundle: Red Hat's places in a root of Debian's packages"

# As Red Hat's have them: what p11-kit's text says, anchors, what is blocked, links to the bundle.
command -v rpmbuild >/dev/null || skip "rpmbuild is missing: no package of certificates in Red Hat's layout"
cd "$work" || exit
for ca in good mail bad distrusted anchor; do
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $ca.key -out $ca.pem -days 3650 -subj "/CN=$ca" 2>/dev/null
	openssl pkey -in $ca.key -pubout -out $ca.pub 2>/dev/null
done
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout site.key -subj /CN=site 2>/dev/null |
	openssl x509 -req -CA good.pem -CAkey good.key -days 3650 -out site.pem 2>/dev/null || fail "openssl x509 -req"
src=tree/usr/share/pki/ca-trust-source
mkdir -p $src/blocklist tree/etc/pki/ca-trust/source/anchors tree/etc/pki/tls/certs tree/etc/pki/ca-trust/extracted/pem
object() { printf '[p11-kit-object-v1]\nlabel: "%s"\n%s\nmodifiable: false\n' "$1" "$2"; cat "$3"; echo; }
{
	object mail $'class: x-certificate-extension\nobject-id: 2.5.29.37\nvalue: "%30%13%06%03%55%1d%25%04%0c%30%0a%06%08%2b%06%01%05%05%07%03%04"' mail.pub
	for ca in good mail bad; do object $ca 'trusted: true' $ca.pem; done
	object distrusted 'x-distrusted: true' distrusted.pem
} >$src/ca-bundle.trust.p11-kit
echo 'No certificates are here.' >$src/README
cp bad.pem $src/blocklist/
openssl x509 -in anchor.pem -outform DER -out tree/etc/pki/ca-trust/source/anchors/own.crt
ln -s /etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem tree/etc/pki/tls/certs/ca-bundle.crt
ln -s certs/ca-bundle.crt tree/etc/pki/tls/cert.pem
cat >ca.spec <<'SPEC'
Name: ca-certificates
Version: 2024
Release: 1
Summary: test
License: none
BuildArch: noarch
%description
test
%install
cp -a %{src}/. %{buildroot}/
touch %{buildroot}/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem
%files
/usr/share/pki
/etc/pki/ca-trust/source
/etc/pki/tls
%ghost /etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem
SPEC
rpmbuild -bb --quiet --nodeps -D "_topdir $work/top" -D "_rpmdir $work/rpms" -D "src $work/tree" -D '_rpmfilename %%{NAME}.rpm' \
	-D 'debug_package %{nil}' -D '__os_install_post %{nil}' ca.spec >log 2>&1 || fail "rpmbuild: $(tail -n 3 log)"
cd - >/dev/null || exit
only() { "$SLIMTRACE" cut --rpm "$work/rpms" "$@" >"$work/log" 2>&1 || fail "cut $*: $(tail -n 1 "$work/log")"; }
for how in "" --headers-only; do
	rm -rf "$work/redhat"
	only $how --out "$work/redhat" /etc/pki/tls/cert.pem --generate ca-bundle
	bundle=$work/redhat/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem
	names=$(openssl crl2pkcs7 -nocrl -certfile "$bundle" | openssl pkcs7 -print_certs -noout | sed -n 's/^subject=CN = //p' | sort | tr '\n' ' ')
	[[ $names == 'anchor good ' ]] || fail "ca-bundle of Red Hat's layout: $names"
	openssl verify -CAfile "$bundle" "$work/site.pem" >"$work/log" 2>&1 || fail "the bundle does not verify a site: $(cat "$work/log")"
	[[ $(readlink "$work/redhat/etc/pki/tls/cert.pem") == certs/ca-bundle.crt ]] || fail "cert.pem: $(readlink "$work/redhat/etc/pki/tls/cert.pem")"
	link=$(readlink "$work/redhat/etc/pki/tls/certs/ca-bundle.crt")
	[[ $link == /etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem ]] || fail "ca-bundle.crt: $link"
	[[ ! -e $work/redhat/etc/ssl ]] || fail "ca-bundle: Debian's places in a root of Red Hat's layout"
	slim_rpm "$work/redhat" -Va || fail "rpm -Va with certificates"
done
echo ok
