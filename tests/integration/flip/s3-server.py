"""An object store for tests: s3-server.py PORT FOLDER KEY SECRET TOKEN PUBLIC. Buckets are FOLDER's folders. A GET is answered when
its AWS Signature Version 4 is right, computed here anew from what came over the wire; of the bucket PUBLIC without one, too."""
import datetime, hashlib, hmac, http.server, os, re, socketserver, sys, urllib.parse

port, folder, key, secret, token, public = int(sys.argv[1]), *sys.argv[2:7]


def mac(k, text):
    return hmac.new(k, text.encode(), hashlib.sha256).digest()


def why_not(q):
    """None when the request is signed as it must be."""
    m = re.fullmatch(r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/s3/aws4_request,\s*SignedHeaders=([a-z0-9;-]+),\s*Signature=([0-9a-f]{64})",
                     q.headers.get("Authorization", ""))
    if not m:
        return "AccessDenied"
    who, day, region, names, signature = m.groups()
    date = q.headers.get("x-amz-date", "")
    if who != key or not date.startswith(day):
        return "InvalidAccessKeyId"
    if abs((datetime.datetime.utcnow() - datetime.datetime.strptime(date, "%Y%m%dT%H%M%SZ")).total_seconds()) > 900:
        return "RequestTimeTooSkewed"
    names = names.split(";")
    wanted = ["host", "x-amz-content-sha256", "x-amz-date"] + (["x-amz-security-token"] if token else [])
    if names != sorted(names) or any(n not in names for n in wanted):
        return "not all headers are signed"
    if q.headers.get("x-amz-security-token", "") != token:
        return "InvalidToken"
    if q.headers.get("x-amz-content-sha256") != hashlib.sha256(b"").hexdigest():
        return "XAmzContentSHA256Mismatch"
    path, _, query = q.path.partition("?")
    canonical = "\n".join(["GET", urllib.parse.quote(urllib.parse.unquote(path), safe="/-_.~"), query,
                           *(f"{n}:{' '.join(q.headers[n].split())}" for n in names), "", ";".join(names), hashlib.sha256(b"").hexdigest()])
    text = "\n".join(["AWS4-HMAC-SHA256", date, f"{day}/{region}/s3/aws4_request", hashlib.sha256(canonical.encode()).hexdigest()])
    k = mac(mac(mac(mac(("AWS4" + secret).encode(), day), region), "s3"), "aws4_request")
    return None if hmac.compare_digest(mac(k, text).hex(), signature) else "SignatureDoesNotMatch"


class Store(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def refuse(self, status, code):
        body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{code}</Message></Error>'.encode()
        self.send_response(status)
        self.send_header("Content-Length", len(body))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        path = urllib.parse.unquote(self.path.partition("?")[0])
        why = why_not(self)
        if why and not (path.startswith(f"/{public}/") and "Authorization" not in self.headers):
            return self.refuse(403, why)
        try:
            data = open(os.path.join(folder, path.lstrip("/")), "rb").read()
        except OSError:
            return self.refuse(404, "NoSuchKey")
        m = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        part = data[int(m[1]):int(m[2]) + 1] if m else data
        self.send_response(206 if m else 200)
        if m:
            self.send_header("Content-Range", f"bytes {m[1]}-{int(m[1]) + len(part) - 1}/{len(data)}")
        self.send_header("Content-Length", len(part))
        self.end_headers()
        self.wfile.write(part)


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 128


Server(("127.0.0.1", port), Store).serve_forever()
