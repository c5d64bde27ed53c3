#!/bin/bash
# Roots cut from packages are as small as promised, run, run something else too, and their package database says what
# is in them. Bytes count everything in the root: database, manifest and caches included.
set -u
. "$(dirname "$0")/slim/repo.sh"
slim_need_root
slim_repo
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# cut NAME LIMIT REQUEST...
cut() {
	local name=$1 limit=$2 size
	shift 2
	"$SLIMTRACE" cut --repo "$REPO" --out "$work/$name" "$@" >"$work/$name.log" 2>&1 ||
		fail "$name: $(tail -n 1 "$work/$name.log")"
	size=$(slim_size "$work/$name")
	printf '%-10s %9d bytes, limit %9d, %s\n' "$name" "$size" "$limit" "$(tail -n 1 "$work/$name.log" | cut_counts)"
	((size <= limit)) || fail "$name: $size bytes are more than $limit"
	slim_rpm "$work/$name" -Va >"$work/verify" 2>&1 || fail "$name: rpm -Va: $(cat "$work/verify")"
}

cut_counts() {
	sed 's/^[^:]*: //'
}

# runs NAME PATTERN COMMAND...: exit 0 and output that fits.
runs() {
	local name=$1 pattern=$2 out
	shift 2
	out=$(slim_root "$work/$name" "$@" 2>&1) || fail "$name: $*: exit $?: $out"
	grep -qE -- "$pattern" <<<"$out" || fail "$name: $*: printed \"$out\", expected $pattern"
}

# has_packages NAME PACKAGE...: exactly these are in the database.
has_packages() {
	local name=$1 have want
	shift
	have=$(slim_rpm "$work/$name" -qa --qf '%{NAME}\n' | sort | tr '\n' ' ')
	want=$(printf '%s\n' "$@" | sort | tr '\n' ' ')
	[[ $have == "$want" ]] || fail "$name: rpm -qa says $have, expected $want"
}

# A state for each absent file takes 16 kB, more than the promise of 3.0 MB leaves room for; telling them in words does not.
cut busybox-short 3000000 --rpmdb short /bin/busybox
cut busybox 3015000 /bin/busybox
runs busybox '^bin$' /bin/busybox ls /
runs busybox Linux /bin/busybox sh -c '/bin/busybox uname'
runs busybox 'b7d6' /bin/busybox sh -c 'echo x | /bin/busybox sha256sum; echo b7d6' # another applet
has_packages busybox busybox filesystem libc6

cut bash 3700000 /bin/bash
runs bash '^12$' /bin/bash -c 'echo $((3 * 4))'
runs bash 'äöü' /bin/bash -c 'LC_ALL=C.UTF-8; x=äöü; printf "%s\n" "${x^^}" "$x"'
has_packages bash bash filesystem libc6 libtinfo6

cut python 18500000 /usr/bin/python3 python:{json,ssl,sqlite3,hashlib,re}
runs python '"a": 1.*\[\(2,\)\]' /usr/bin/python3 -c 'import json, ssl, sqlite3, hashlib, re
print(json.dumps({"a": 1}), sqlite3.connect(":memory:").execute("select 1 + 1").fetchall(), ssl.OPENSSL_VERSION)'
runs python '^ok$' /usr/bin/python3 -c 'import hashlib, re, json
assert re.findall("(?i)[a-z]+", "Ab 1 c") == ["Ab", "c"] and len(hashlib.sha3_256(b"").hexdigest()) == 64
try: json.loads("{")
except json.JSONDecodeError: print("ok")'

cut numpy 38000000 /usr/bin/python3 python:numpy
runs numpy '0\.5' /usr/bin/python3 -c 'import numpy; print(numpy.linalg.inv(numpy.eye(2) * 2).tolist())'
runs numpy '^7.0 3 ' /usr/bin/python3 -c 'import numpy as n
print(n.polynomial.Polynomial([1, 2])(3), n.ma.masked_array([1, 2]).sum(), n.fft.fft([1, 2]), n.random.default_rng(1).integers(9))'

cut curl 22500000 /usr/bin/curl /usr/bin/openssl /etc/ssl/certs/ca-certificates.crt --generate users
runs curl 'OpenSSL' /usr/bin/curl --version
runs curl '^OpenSSL 3' /usr/bin/openssl version
runs curl 'CN ?= ?' /usr/bin/openssl x509 -noout -subject -in /etc/ssl/certs/ca-certificates.crt

# TLS with a bundle of our own, a name looked up by NSS, and what must be refused.
openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -days 2 -addext subjectAltName=DNS:localhost \
	-keyout "$work/key" -out "$work/cert" 2>/dev/null || fail "openssl req"
openssl s_server -accept 127.0.0.1:0 -key "$work/key" -cert "$work/cert" -www >"$work/server" 2>&1 &
trap 'kill $(jobs -pr) 2>/dev/null; rm -rf "$work"' EXIT
for ((i = 0; i < 600; i++)); do
	port=$(sed -n 's/^ACCEPT .*:\([0-9]*\)$/\1/p' "$work/server") && [[ $port ]] && break
	sleep 0.1
done
[[ $port ]] || fail "openssl s_server: $(cat "$work/server")"
echo '127.0.0.1 localhost' >"$work/curl/etc/hosts"
slim_root "$work/curl" /usr/bin/curl -sS "https://localhost:$port/" >"$work/out" 2>&1 && fail "curl: an unknown certificate passed"
grep -q 'certificate' "$work/out" || fail "curl: $(cat "$work/out")"
cat "$work/cert" >>"$work/curl/etc/ssl/certs/ca-certificates.crt"
runs curl 'Cipher' /usr/bin/curl -sS "https://localhost:$port/"
echo ok
