#!/bin/bash
# What a slim root must do beyond the run it was made from: TLS to a server whose authority is in the bundle of the root,
# names of hosts and users by NSS, character sets, another user; and the same refusals as in the full root.
set -u
. "$(dirname "$0")/slim/repo.sh"
. "$(dirname "$0")/slim/install.sh"
slim_need_root
command -v openssl >/dev/null || skip "openssl is missing: no certificates"
slim_repo
work=$(mktemp -d)
finish() {
	kill $(jobs -pr) && wait
	rm -rf "$work"
} 2>/dev/null
trap finish EXIT
export TMPDIR=$work

# Two authorities with a server each: the first one is in the root's bundle, nobody knows the second.
for ca in known unknown; do
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=$ca authority" \
		-addext basicConstraints=critical,CA:TRUE -keyout "$work/$ca.ca.key" -out "$work/$ca.ca" >"$work/log" 2>&1 &&
		openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=localhost" -keyout "$work/$ca.key" \
			-out "$work/$ca.csr" >"$work/log" 2>&1 &&
		openssl x509 -req -in "$work/$ca.csr" -CA "$work/$ca.ca" -CAkey "$work/$ca.ca.key" -CAcreateserial -days 2 \
			-extfile <(echo subjectAltName=DNS:localhost,DNS:secure.example) -out "$work/$ca.crt" >"$work/log" 2>&1 ||
		fail "certificates: $(tail -n 1 "$work/log")"
done
python3 - "$work" <<'PY' 2>"$work/server.err" &
import http.server, os, ssl, sys, threading
work = sys.argv[1]
class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"hello " + self.path.encode() + b"\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass
ports = []
for name in "known", "unknown":
    s = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hello)
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    c.load_cert_chain(f"{work}/{name}.crt", f"{work}/{name}.key")
    s.socket = c.wrap_socket(s.socket, server_side=True, do_handshake_on_connect=False)
    ports.append(str(s.server_address[1]))
    threading.Thread(target=s.serve_forever).start()
open(work + "/ports.new", "w").write(" ".join(ports) + "\n")
os.rename(work + "/ports.new", work + "/ports")
PY
for _ in {1..1200}; do
	[[ -e $work/ports ]] && break
	sleep 0.1
done
read -r known unknown <"$work/ports" || fail "the server does not start"

slim_install "$work/full" bash curl openssl ca-certificates libc-bin base-passwd
bundle=/etc/ssl/certs/ca-certificates.crt
[[ -s $work/full$bundle ]] || fail "the full root has no bundle"
cat "$work/known.ca" >>"$work/full$bundle"
echo '127.0.0.1 localhost secure.example' >"$work/full/etc/hosts"
printf 'passwd: files\ngroup: files\nhosts: files dns\n' >"$work/full/etc/nsswitch.conf"
printf 'na\xefve \xa4\n' >"$work/full/text"

# The runs of the slimming know one name, one page, one way of conversion.
"$SLIMTRACE" slim -q --root "$work/full" --out "$work/slim" --run "curl -sS https://localhost:$known/" \
	--run 'openssl version' --run 'getent ahosts localhost' --run 'iconv -f ISO-8859-15 -t UTF-8 /text' --run 'bash -c true' \
	--check "curl -sS https://localhost:$unknown/" >"$work/log" 2>"$work/err" || fail "slim: $(grep -A4 FAILED "$work/log"; cat "$work/err")"

# same EXIT PATTERN COMMAND...: both roots end with this exit code and print the same, which matches the pattern
same() {
	local code=$1 pattern=$2 full slim full_code slim_code thread='s/^[0-9A-F]*:error:/error:/'
	shift 2
	full=$(slim_root "$work/full" "$@" 2>&1 </dev/null)
	full_code=$?
	slim=$(slim_root "$work/slim" "$@" 2>&1 </dev/null)
	slim_code=$?
	full=$(sed "$thread" <<<"$full") slim=$(sed "$thread" <<<"$slim")
	((full_code == code)) && grep -qaE -- "$pattern" <<<"$full" || fail "full: $*: exit $full_code: $full"
	[[ $slim_code == "$full_code" && $slim == "$full" ]] || fail "slim: $*: exit $slim_code: $slim, not $full_code: $full"
}
s_client=(openssl s_client -brief -verify_return_error -CAfile "$bundle" -servername localhost -verify_hostname localhost)

# TLS, its name found in /etc/hosts of the root; the same by openssl, which the slimming did not see do it
same 0 '^hello /a$' curl -sS "https://secure.example:$known/a"
same 0 '^0$' curl -sS -o /dev/null -w '%{ssl_verify_result}\n' --tlsv1.2 --tls-max 1.2 "https://localhost:$known/"
same 0 '^Verification: OK$' "${s_client[@]}" -connect "localhost:$known"

# what must be refused is refused for the same reason: an unknown authority, another name, a name that is none
same 60 'unable to get local issuer certificate' curl -sS "https://localhost:$unknown/"
same 60 'no alternative certificate subject name matches' curl -sS --resolve "other.example:$known:127.0.0.1" "https://other.example:$known/"
same 1 'Verification error: unable to get local issuer certificate|verify error' "${s_client[@]}" -connect "localhost:$unknown"
same 6 'Could not resolve host' curl -sS http://name.invalid/

# names of hosts and users by the name service switch
same 0 '^127.0.0.1 +STREAM' getent ahostsv4 secure.example
same 0 '^(127.0.0.1|::1) +localhost' getent hosts localhost
same 0 '^nobody:' getent passwd 65534
same 2 '^$' getent passwd no-such-user

# other conversions than the traced one
same 0 '^naïve €$' iconv -f ISO-8859-15 -t UTF-8 /text
same 0 '^naïve ¤$' bash -c 'iconv -f CP1252 -t UTF-16LE /text | iconv -f UTF-16LE -t UTF-8'
same 1 '^iconv: ' iconv -f no-such-set -t UTF-8 /text

# as another user, who may do all of this but write
export SLIM_USER=65534:65534
same 0 '^65534 hello /b$' bash -c "echo -n \"\$UID \"; curl -sS https://secure.example:$known/b"
same 1 'Permission denied' bash -c 'echo x >/etc/hosts'
echo "the same in $(slim_size "$work/slim") bytes as in $(slim_size "$work/full")"
exit 0
