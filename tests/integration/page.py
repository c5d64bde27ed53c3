"""The page at / in headless Chromium, by WebDriver: page.py DRIVER_URL PAGE_URL."""
import json
import sys
import time
import urllib.request

driver, page = sys.argv[1], sys.argv[2]


def call(method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    req = urllib.request.Request(driver + path, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(req, timeout=120) as r:
        return json.load(r)["value"]


options = {"args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--lang=en-US"]}
caps = {"capabilities": {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options,
                                         "goog:loggingPrefs": {"browser": "ALL"}}}}
session = "/session/" + call("POST", "/session", caps)["sessionId"]


def run(script):
    return call("POST", session + "/execute/sync", {"script": script, "args": []})


def wait(script, what):
    for _ in range(1800):
        v = run(script)
        if v:
            return v
        time.sleep(0.1)
    raise SystemExit(f"FAIL: {what}: {run('return document.body.innerText')}")


try:
    call("POST", session + "/url", {"url": page})
    wait("return document.getElementById('state').className === 'ok'", "the state")
    assert run("return document.getElementById('model').textContent") == "qwen3"
    assert "qwen3" in run("return document.getElementById('arch').textContent")
    wait("return document.getElementById('kvtext').textContent.includes('/')", "the K/V cache")
    print("ok the page shows model and load")

    # The tiny model has its answer within a frame, and may end it after one token. So the request asks for 24, whatever comes, and
    # its events reach the page one at a time, 40 ms apart.
    run("""const plain = window.fetch;
        window.fetch = async (url, o) => {
          if (!o || !o.body) return plain(url, o);
          const r = await plain(url, { ...o, body: JSON.stringify({ ...JSON.parse(o.body), ignore_eos: true, max_tokens: 24, temperature: 0 }) });
          const reader = r.body.getReader(), from = new TextDecoder(), to = new TextEncoder();
          let rest = "";
          const body = new ReadableStream({ async pull(c) {
            for (;;) {
              const at = rest.indexOf("\\n\\n");
              if (at >= 0) {
                await new Promise(f => setTimeout(f, 40));
                c.enqueue(to.encode(rest.slice(0, at + 2)));
                rest = rest.slice(at + 2);
                return;
              }
              const { done, value } = await reader.read();
              if (done) return c.close();
              rest += from.decode(value, { stream: true });
            }
          } });
          return new Response(body, { status: r.status, headers: r.headers });
        };""")
    run("window.grown = 0; new MutationObserver(() => window.grown++).observe(document.getElementById('log'),"
        " {subtree: true, childList: true, characterData: true});"
        "document.getElementById('text').value = 'uptime?'; document.getElementById('form').requestSubmit();")
    wait("return document.getElementById('log').dataset.answers === '1'", "an answer")
    answer = run("return (document.querySelector('#log .answer') || {}).textContent || ''")
    assert len(answer) > 0 and run("return window.grown") > 3, (answer, run("return window.grown"))
    assert run("return document.querySelectorAll('#log .error').length") == 0
    print("ok the chat streams")

    before = run("return document.getElementById('send').textContent")
    run("document.getElementById('lang').click()")
    after = run("return document.getElementById('send').textContent")
    assert {before, after} == {"Send", "发送"}, (before, after)
    print("ok English and Chinese")

    outside = run("return performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith(location.origin))")
    assert outside == [], outside
    errors = [e for e in call("POST", session + "/se/log", {"type": "browser"}) if e["level"] == "SEVERE" and "favicon" not in e["message"]]
    assert errors == [], errors
    print("ok nothing from elsewhere, no error")
finally:
    call("DELETE", session)
