"""Other sites: only the app's own page can use it (CORS, CSRF, DNS rebinding, frames)."""

import functools
import http.server
import json
import threading

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from tests.attacks.asking import send
from tests.attacks.attack import attack
from tests.conftest import free_port
from ui.server.middleware import Guard, host_names
from ui.server.uploads import Uploads

EVIL = "https://evil.example"
OTHER_SITES = "Requests from other sites are rejected: open the app's own page."
REFUSED = json.dumps({"detail": OTHER_SITES}, separators=(",", ":"))
SEARCH = {"data": ["a dog", "mean", 1, False]}
TARGETS = (
    ("POST", "/gradio_api/call/search", SEARCH),
    ("POST", "/gradio_api/queue/join", {"data": [], "fn_index": 0, "session_hash": "a"}),
    ("POST", "/gradio_api/upload", b""),
    ("POST", "/gradio_api/mcp/", {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}),
    ("GET", "/config", None),
    ("GET", "/clip/corpus/x", None),
    ("GET", "/gradio_api/heartbeat/abc", None),
)


def port_of(app):
    return app.rstrip("/").rpartition(":")[2]


@attack("every address", "the `Origin` of another site, another port, a file, `null`", "403")
def test_other_origins(app_url):
    for origin in (EVIL, "null", "file://", "http://127.0.0.1:1", "http://localhost", app_url.replace("http:", "ftp:")):
        for method, target, body in TARGETS:
            answer = send(app_url, target, method, body, Origin=origin)
            assert (answer.status, answer.sentence) == (403, OTHER_SITES), (origin, target)
    assert send(app_url, "/config", Origin=app_url.rstrip("/")).status == 200


@attack("every address", "a preflight request from another site, and the request after it", "not allowed; 403")
def test_preflights(app_url):
    headers = {"Origin": EVIL, "Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "x-a"}
    for method, target, body in TARGETS:
        assert "access-control-allow-origin" not in send(app_url, target, "OPTIONS", **headers).headers
        assert send(app_url, target, method, body, Origin=EVIL, x_a="1").sentence == OTHER_SITES


@attack("every address", "pictures, forms and fetches of another site (`Sec-Fetch-Site`)", "403")
def test_requests_with_the_fetch_metadata_of_other_sites(app_url):
    for site in ("cross-site", "same-site", "anything"):
        for method, target, body in TARGETS:
            for mode in ("no-cors", "cors", "navigate" if method == "POST" else "websocket"):
                answer = send(app_url, target, method, body, Sec_Fetch_Site=site, Sec_Fetch_Mode=mode)
                assert (answer.status, answer.sentence) == (403, OTHER_SITES)
    assert send(app_url, "/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate").status == 200  # a link leads here


@attack("a local run", "other names in `Host` and `X-Forwarded-Host` (DNS rebinding)", "403")
def test_other_host_names(app_url):
    port = port_of(app_url)
    names = ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "evil.example@127.0.0.1.nip.io", "")
    for name in names:
        for host in (name, f"{name}:{port}"):
            answer = send(app_url, "/config", Host=host)
            assert answer.status == 403, host
            assert answer.sentence.startswith("This host name is not allowed")
    for passed_on in ("evil.example", "evil.example, 127.0.0.1", "127.0.0.1, evil.example"):
        assert send(app_url, "/", X_Forwarded_Host=passed_on).status == 403
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"LOCALHOST:{port}", f"[::1]:{port}", "localhost."):
        assert send(app_url, "/config", Host=host).status == 200, host


@attack("a run for other machines", "any name except those of `--name` and the machine's own", "403")
def test_only_given_host_names_are_allowed(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "studio")
    assert host_names(None, ["videos.example"]) == ["videos.example"]
    assert set(host_names("0.0.0.0", ["videos.example"])) == {"videos.example", "0.0.0.0", "studio", "studio.local"}
    guard = Guard(None, Uploads(None, None), host_names("0.0.0.0", ["Videos.Example"]))
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "scheme": "http"}
    for host in ("videos.example", "studio:7860", "studio.local", "192.168.0.7:7860"):
        guard._validate(Request(scope | {"headers": [(b"host", host.encode())]}))
    for host in ("evil.example", "studio.evil.example", "videos.example.evil.example"):
        with pytest.raises(HTTPException, match="--name NAME"):
            guard._validate(Request(scope | {"headers": [(b"host", host.encode())]}))


@attack(
    "the page",
    "a frame on another site (clickjacking), and media types guessed by browsers",
    "headers that forbid both",
)
def test_headers_of_every_response(app_url, hosted):
    for target in ("/", "/config", "/clip/corpus/x", "/nowhere", "/plotly.js", "/gradio_api/info"):
        headers = send(app_url, target).headers
        assert headers["x-frame-options"] == "SAMEORIGIN"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'self'"
        assert policy["object-src"] == "'none'"
        assert "http" not in headers["content-security-policy"]
    there = send(hosted.url, "/").headers["content-security-policy"]
    assert there.endswith("frame-ancestors 'self' https://huggingface.co https://*.hf.space")


@attack("every address", "a WebSocket from any site", "not opened")
def test_websockets(app_url):
    headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec_WebSocket_Version": "13"}
    for target in ("/", "/gradio_api/queue/join", "/gradio_api/queue/data"):
        answer = send(app_url, target, Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==", **headers)
        assert answer.status != 101
        assert "upgrade" not in answer.headers
    sent = []

    async def record(message):
        sent.append(message)

    with pytest.raises(StopIteration):
        Guard(None, Uploads(None, None), [])({"type": "websocket"}, None, record).send(None)
    assert sent == [{"type": "websocket.close", "code": 1008}]


PAGE = """<!doctype html><title>Elsewhere</title><script>
const app = %s, tried = {};
const json = "application/json", text = "text/plain";
const body = '{"data": ["a dog", "mean", 1, false]}';
const posted = (type) => ({ method: "POST", body, headers: { "Content-Type": type } });
const named = (name, made) => made.then((value) => tried[name] = value, (error) => tried[name] = error.name);
const shown = (kind, src) => new Promise((done, failed) => {
  const element = document.createElement(kind);
  element.onload = element.onloadeddata = () => done("shown");
  element.onerror = () => failed({ name: "failed" });
  element.src = src;
  document.body.append(element);
});
window.onload = async () => {
  const read = (path, settings) => fetch(app + path, settings).then((answer) => answer.text());
  await Promise.all([
    named("config", read("config")),
    named("call", read("gradio_api/call/search", posted(json))),
    named("simple call", read("gradio_api/call/search", posted(text))),
    named("clip", shown("video", app + "clip/corpus/" + %s)),
    named("picture", shown("img", app + "thumbnail/corpus/" + %s)),
    named("script", shown("script", app + "plotly.js")),
    named("events", new Promise((done, failed) => {
      const source = new EventSource(app + "gradio_api/heartbeat/abc");
      source.onmessage = () => done("heard");
      source.onerror = () => failed({ name: "failed" });
    })),
  ]);
  window.tried = tried;
};
</script><body></body>"""


@attack(
    "a visitor's browser",
    "a page on another port of this machine that fetches, posts, embeds and listens",
    "rejected, or no data",
)
def test_a_page_of_another_site_in_a_real_browser(browser, app_url, engine, tmp_path):
    clip = json.dumps(engine.corpus.ids[0])
    (tmp_path / "index.html").write_text(PAGE % (json.dumps(app_url), clip, clip))
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", free_port()), functools.partial(quiet, directory=tmp_path))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = browser.new_page()
    try:
        page.goto(f"http://localhost:{server.server_port}/")
        page.wait_for_function("() => window.tried")
        tried = page.evaluate("() => window.tried")
    finally:
        page.close()
        server.shutdown()
        server.server_close()
    assert len(tried) == 7
    assert {came for name, came in tried.items() if name in ("config", "call", "simple call")} == {REFUSED}
    assert {came for name, came in tried.items() if name in ("clip", "picture", "script", "events")} == {"failed"}
