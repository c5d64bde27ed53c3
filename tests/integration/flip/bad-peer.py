"""A member that is none: bad-peer.py PORT HOW. It answers every question with

noise  bytes that are no frames        lie    frames, of the ranges that were asked for, with other bytes
stall  nothing                         cut    half of an answer
wait   frames that say "wait"          error  status 500
busy   status 503, for ever
"""
import http.server, os, re, socketserver, struct, sys, time

port, how = int(sys.argv[1]), sys.argv[2]


def frame(form, data=b"", offset=0, inner=0):
    return struct.pack("<B3xIQQ", form, len(data), offset, inner) + data


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"

    def log_message(self, *args):
        pass

    def do_GET(self):
        ranges = [tuple(map(int, r)) for r in re.findall(r"(\d+)-(\d+)", self.headers.get("Range", ""))]
        if how == "stall":
            time.sleep(60)
            return
        self.send_response({"error": 500, "busy": 503}.get(how, 200))
        self.end_headers()
        try:
            if how == "noise":
                self.wfile.write(os.urandom(100000))
            elif how == "lie":
                for first, last in ranges:
                    self.wfile.write(frame(1, os.urandom(last - first + 1), first))
                self.wfile.write(frame(6))
            elif how == "cut":
                for first, last in ranges:
                    self.wfile.write(frame(1, os.urandom(last - first + 1), first)[: (last - first) // 2])
                    break
            elif how == "wait":
                for _ in range(600):
                    self.wfile.write(frame(5))
                    self.wfile.flush()
                    time.sleep(0.2)
        except OSError:
            pass


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128


Server(("0.0.0.0", port), Answer).serve_forever()
