"""Asks one member for pieces of a layer, again and again, as fast as it gives them: asker.py HOST:PORT TOKEN LAYER SIZE IMAGE PRIORITY.
Ends by SIGTERM, and prints how many bytes came."""
import hashlib, hmac, http.client, os, signal, sys, time

where, token, layer, size, image, priority = sys.argv[1:7]
secret = open(token, "rb").read().rstrip(b" \t\r\n")
size, came, question = int(size), 0, 1 << 20
name, path = "10.86.9.9:8422", "/flip/1/layer/" + layer


def end(*_):
    print(came, flush=True)
    os._exit(0)


signal.signal(signal.SIGTERM, end)
c, at = http.client.HTTPConnection(where, timeout=20), 0
while True:
    ranges = f"bytes={at}-{min(at + question, size) - 1}"
    now, nonce = str(int(time.time())), os.urandom(8).hex()
    parts = ["flip-auth-1", now, nonce, path, ranges, image, "public", "holder", name]
    text = b"".join(b"%d:%s\n" % (len(p), p) for p in (x.encode() for x in parts))
    auth = hmac.new(secret, text, hashlib.sha256).hexdigest()
    try:
        c.request("GET", path, headers={"Range": ranges, "Flip-Peer": name, "Flip-Image": image, "Flip-Grant": "public", "Flip-Role": "holder",
                                        "Flip-Priority": priority, "Flip-Accept": "zstd", "Flip-Auth": f"1 {now} {nonce} {auth}"})
        answer = c.getresponse()
        while True:
            data = answer.read(1 << 18)
            came += len(data)
            if not data:
                break
    except (OSError, http.client.HTTPException):
        c.close()
        time.sleep(0.05)
    at = at + question if at + question < size else 0
