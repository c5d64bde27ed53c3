"""A scripted OpenAI-compatible server: answers each chat completion with the next line of a script, and keeps what it was
asked.

    server.py ADDRESS SCRIPT LOG PORT_FILE

A line of SCRIPT is JSON: {"say": "text"}, {"call": [["tool", {"argument": 1}], ...]}, {"status": 400, "error": "words"}.
Behind its end the last line is repeated. Requests are appended to LOG, one JSON object a line: path, headers, body.
"""

import http.server
import json
import os
import sys

address, script_path, log_path, port_path = sys.argv[1:]
script = [json.loads(line) for line in open(script_path, encoding="utf-8") if line.strip()]
asked = 0


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def note(self, body):
        with open(log_path, "a", encoding="utf-8") as log:
            log.write(json.dumps({"path": self.path, "headers": dict(self.headers), "body": body}, ensure_ascii=False) + "\n")

    def answer(self, status, kind, data):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        self.note(None)
        self.answer(200, "application/json", json.dumps({"data": [{"id": "big", "max_model_len": 32768}]}).encode())

    def do_POST(self):
        global asked
        self.note(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        step = script[min(asked, len(script) - 1)]
        asked += 1
        if "error" in step:
            self.answer(step["status"], "application/json", json.dumps({"error": {"message": step["error"]}}).encode())
            return
        deltas = [{"content": step["say"][i : i + 5]} for i in range(0, len(step.get("say", "")), 5)]
        for index, (name, args) in enumerate(step.get("call", [])):
            text = json.dumps(args, ensure_ascii=False)
            half = len(text) // 2
            deltas.append({"tool_calls": [{"index": index, "id": f"c{asked}{index}", "type": "function",
                                           "function": {"name": name, "arguments": text[:half]}}]})
            deltas.append({"tool_calls": [{"index": index, "function": {"arguments": text[half:]}}]})
        events = [json.dumps({"choices": [{"index": 0, "delta": d}]}, ensure_ascii=False) for d in deltas] + ["[DONE]"]
        self.answer(200, "text/event-stream", "".join(f"data: {e}\n\n" for e in events).encode())


server = http.server.ThreadingHTTPServer((address, 0), Handler)
with open(port_path + ".new", "w", encoding="utf-8") as f:
    f.write(str(server.server_address[1]))

os.rename(port_path + ".new", port_path)
server.serve_forever()
