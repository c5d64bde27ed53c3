"""One question to a member, as a member would ask: ask-peer.py HOST:PORT TOKEN PATH [NAME=VALUE...]. NAME: range, image,
grant, role, age (seconds, of the signature), forge (sign with another secret). Prints the status and how many bytes came."""
import hashlib, hmac, os, sys, time, urllib.error, urllib.request

where, token, path = sys.argv[1:4]
more = dict(a.split("=", 1) for a in sys.argv[4:])
secret = open(token, "rb").read().rstrip(b" \t\r\n")
if "forge" in more:
    secret = more["forge"].encode()


def mac(parts):
    text = b"".join(b"%d:%s\n" % (len(p), p) for p in (x.encode() for x in parts))
    return hmac.new(secret, text, hashlib.sha256).hexdigest()


if "same" in more:  # the proof that we have these credentials
    more["grant"] = "same " + mac(["flip-proof-1", more["same"]])
values = {k: more.get(k, "") for k in ("range", "image", "grant", "role")}
values["peer"] = more.get("peer", "10.86.9.9:8422")
now, nonce = str(int(time.time() - int(more.get("age", 0)))), os.urandom(8).hex()
auth = mac(["flip-auth-1", now, nonce, path, values["range"], values["image"], values["grant"], values["role"], values["peer"]])
headers = {"Flip-Auth": f"1 {now} {nonce} {auth}", "Flip-Peer": values["peer"]}
for name, header in (("range", "Range"), ("image", "Flip-Image"), ("grant", "Flip-Grant"), ("role", "Flip-Role")):
    if values[name]:
        headers[header] = values[name]
try:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
            urllib.request.Request(f"http://{where}{path}", headers=headers), timeout=20) as answer:
        print(answer.status, len(answer.read()))
except urllib.error.HTTPError as e:
    print(e.code, len(e.read()))
