#!/usr/bin/env python3
"""A registry that misbehaves as it is told: passes everything on to a real one, but for what the file MODE says.

faulty_proxy.py PORT REGISTRY_PORT MODE

MODE holds a word and perhaps a number, read anew for each request; bodies of blobs only are damaged:
  none          nothing is changed
  slow N        N bytes a second for each answer
  stall N       N bytes of a body, then silence
  cut N         the connection ends after N bytes of a body
  short N       the answer says that it is N bytes shorter, and is
  flip N        every Nth byte of a body has a bit changed
  large N       the same of bodies of more than N bytes only
  shift         another range than the one asked for, which the header says
  lie           the same, and the header does not say so
  whole         200 and all of the blob whatever the range
  page          200 and a page of text, as from a hotel's network
  status N      this status for blobs; 401 without saying how to log in
  every N       each second answer for a blob is status N
  token NAME    blobs need this token, which /token hands out
  tokens N      the same, and the token is another one after N answers; /tokens says how many there were
  refuse        connections are reset
"""
import http.client
import http.server
import socket
import struct
import sys
import threading
import time

port, registry, mode_file = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
lock = threading.Lock()
upstream = threading.local()  # a connection for each thread, which is one of a client
n_answers = n_good = n_tokens = 0


def mode():
    words = open(mode_file).read().split() + ["0"]
    return words[0], words[1]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60
    disable_nagle_algorithm = True

    def log_message(self, *args):
        pass

    def reset(self):
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def say(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def pass_on(self, drop_range=False, shift=0):
        headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection", "authorization")}
        if drop_range:
            headers.pop("Range", None)
        if shift and "Range" in headers:
            first, last = headers["Range"].split("=")[1].split("-")
            headers["Range"] = f"bytes={int(first) + shift}-{int(last) + shift}"
        if not hasattr(upstream, "connection"):
            upstream.connection = http.client.HTTPConnection("127.0.0.1", registry, timeout=60)
        c = upstream.connection
        try:
            c.request(self.command, self.path, headers=headers)
            a = c.getresponse()
        except (OSError, http.client.HTTPException):  # it was closed meanwhile: a new one, once
            c.close()
            c.request(self.command, self.path, headers=headers)
            a = c.getresponse()
        return a, a.read()

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        global n_answers, n_good, n_tokens
        what, value = mode()
        is_blob = "/blobs/" in self.path
        if what == "refuse":
            return self.reset()
        if self.path == "/tokens":
            return self.say(200, b"%d" % n_tokens)
        if what == "tokens":
            with lock:
                if is_blob and self.headers.get("Authorization") == f"Bearer t{n_tokens}":
                    n_good += 1
                    if n_good % int(value) == 0:
                        n_tokens += 1
                    what = "none"
                else:
                    what, value = "token", f"t{n_tokens}"
        if self.path.startswith("/token"):
            return self.say(200, b'{"token": "%s"}' % value.encode(), Content_Type="application/json")
        if is_blob:
            with lock:
                n_answers += 1
                turn = n_answers
            if what == "token" and self.headers.get("Authorization") != "Bearer " + value:
                return self.say(401, b"{}", WWW_Authenticate=f'Bearer realm="http://127.0.0.1:{port}/token",service="here"')
            if what == "status" or (what == "every" and turn % 2):
                extra = {"Retry_After": "1"} if value == "429" else {}
                return self.say(int(value), b"{}", **extra)
            if what == "page":
                return self.say(200, b"<html>please log in</html>" * 4000, Content_Type="text/html")
        a, body = self.pass_on(drop_range=is_blob and what == "whole",
                               shift=-1 if is_blob and what in ("shift", "lie") else 0)
        self.answer(what if is_blob else "none", value, a, body)

    def answer(self, what, value, a, body):
        n, size = int(value) if value.isdigit() else 0, len(body)
        if what == "short":
            size = max(size - n, 0)
        self.send_response(a.status)
        for name, text in a.getheaders():
            low = name.lower()
            if low == "content-range" and what == "lie":
                text = "bytes " + self.headers.get("Range", "=").split("=")[1] + "/" + text.split("/")[1]
            if low not in ("content-length", "connection", "date", "server") or (low == "content-length" and self.command == "HEAD"):
                self.send_header(name, text)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(size))
        self.end_headers()
        if self.command == "HEAD":
            return
        if what == "flip" and n or what == "large" and len(body) > n > 0:
            body = bytearray(body)
            for i in range(n // 2 if len(body) > n // 2 else len(body) - 1, len(body), n):
                if i >= 0:
                    body[i] ^= 0x10
        if what == "slow":
            for i in range(0, len(body), max(n // 10, 1)):
                self.wfile.write(body[i:i + max(n // 10, 1)])
                time.sleep(0.1)
        elif what == "stall" and len(body) > n:
            self.wfile.write(body[:n])
            self.wfile.flush()
            for _ in range(100):  # until there is another mode
                if mode()[0] != "stall":
                    break
                time.sleep(0.1)
            self.reset()
        elif what == "cut" and len(body) > n:
            self.wfile.write(body[:n])
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        else:
            self.wfile.write(body[:size])


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True

    def handle_error(self, request, address):
        pass  # whoever asked has gone


Server(("127.0.0.1", port), Handler).serve_forever()
