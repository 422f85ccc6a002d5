"""Internals: Gradio's other addresses, the page's own events called directly, and unknown tools."""

import json
import re

import pytest

from tests.attacks.asking import call_api, event, send, sentence, tool
from tests.attacks.attack import attack
from tests.attacks.test_paths import NOT_FOUND
from tests.ui.api.test_endpoints import ENDPOINTS

OFFERED = {
    ("GET", path)
    for path in (
        "/", "/app_id", "/app_id/", "/assets/{path}", "/call/v2/{api_name}/{event_id}", "/call/{api_name}/{event_id}",
        "/clip/{token}/{segment}", "/config", "/favicon.ico", "/heartbeat/{session_hash}", "/info", "/info/",
        "/manifest.json", "/openapi.json", "/plotly.js", "/queue/data", "/robots.txt", "/startup-events",
        "/static/{path}", "/theme.css", "/thumbnail/{token}/{segment}", "/upload_progress",
    )
} | {
    ("POST", path)
    for path in (
        "/call/v2/{api_name}", "/call/v2/{api_name}/", "/call/{api_name}", "/call/{api_name}/", "/cancel",
        "/queue/join", "/reset", "/reset/", "/run/{api_name}", "/run/{api_name}/", "/upload",
    )
}  # fmt: skip
"""The Gradio addresses that the page and the API need, without `/gradio_api`."""

SLOW = ("SearchHandlers.prepare", "GapHandlers.warm")
"""Events without inputs that take minutes."""


def addresses(routes, prefix=""):
    """Every method and path of an app, mounted apps included."""
    for route in routes:
        inner = getattr(route, "routes", None) or getattr(getattr(route, "original_router", None), "routes", None)
        path = prefix + getattr(route, "path", "")
        if inner:
            yield from addresses(inner, path)
        for method in getattr(route, "methods", None) or ():
            yield method, path


@attack(
    "Gradio's addresses",
    "all those of this release that the app does not need: proxies, monitoring, recordings, editors",
    "404",
)
def test_addresses_that_gradio_has_and_the_app_does_not_need(hosted):
    seen = 0
    for method, path in sorted(set(addresses(hosted.blocks.app.routes))):
        short = re.sub(r"^/gradio_api|:path", "", path)
        if (method.replace("HEAD", "GET"), short) in OFFERED or "/mcp" in path:
            continue
        target = re.sub(r"\{[^}]*\}", "x", path)
        for prefix in ("", "/gradio_api") if not path.startswith("/gradio_api") else ("",):
            answer = send(hosted.url, prefix + target, method, None if method in ("GET", "HEAD") else b"{}")
            assert answer.status in (403, 404), (method, prefix + target)
            assert method == "HEAD" or answer.sentence == NOT_FOUND
        seen += 1
    assert seen > 40


@attack(
    "Gradio's addresses",
    "by name: monitoring, process_recording, proxy, stream, vibe-edit, dev/reload, docs",
    "404",
)
@pytest.mark.parametrize(
    "target",
    [
        "monitoring", "monitoring/summary", "monitoring/guess", "gradio_api/process_recording", "gradio_api/vibe-edit",
        "gradio_api/undo-vibe-edit", "gradio_api/vibe-code", "gradio_api/dev/reload", "gradio_api/token",
        "gradio_api/user", "gradio_api/login_check", "login", "logout", "gradio_api/deep_link", "gradio_api/runs",
        "gradio_api/run-history/records", "gradio_api/custom_component/1/client/component/x.js",
        "gradio_api/component_server", "gradio_api/stream/a/1/1/playlist.m3u8", "gradio_api/stream/a",
        "gradio_api/proxy=https://huggingface.co/x", "gradio_api/profiling/summary", "gradio_api/mcp/sse",
        "gradio_api/mcp/messages/", "docs", "redoc", "openapi.json", "svelte/x", "pwa_icon", "gradio_api/api/search",
    ],
)  # fmt: skip
def test_addresses_by_their_names(app_url, target):
    for method in ("GET", "POST"):
        answer = send(app_url, f"/{target}", method, None if method == "GET" else b"{}")
        assert (answer.status, answer.sentence) == (404, NOT_FOUND), method


@attack("every address", "unsupported methods: PUT, PATCH, DELETE, TRACE, CONNECT, invented ones", "404")
def test_methods(app_url):
    for method in ("PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "PROPFIND", "X"):
        for target in ("/", "/config", "/gradio_api/queue/join", "/gradio_api/upload", "/clip/corpus/x"):
            assert send(app_url, target, method, b"").status in (400, 404), (method, target)


@attack(
    "`/run`", "the API's endpoints and the page's events without the queue and its limits", "404, or no private data"
)
def test_calls_that_bypass_the_queue(hosted):
    queued = {fn.api_name or fn.name: number for number, fn in hosted.blocks.fns.items() if fn.queue}
    assert {name.strip("/") for name in ENDPOINTS} < set(queued)
    for name, number in queued.items():
        for target, body in ((name, {"data": []}), ("predict", {"data": [], "fn_index": number})):
            if not re.fullmatch(r"[\w-]+", target):
                continue
            answer = send(hosted.url, f"/gradio_api/run/{target}", "POST", body)
            assert answer.status in (400, 404), target
            assert answer.sentence
    for number in set(hosted.blocks.fns) - set(queued.values()):
        for data in ([], ["/etc/passwd"] * 9, [{"path": "/etc/passwd"}] * 9):
            body = {"data": data, "fn_index": number, "session_hash": "intruder"}
            answer = send(hosted.url, "/gradio_api/run/predict", "POST", body)
            assert not re.search(rb"root:|Traceback|/tmp/", answer.body)


@attack(
    "the page's events",
    "direct calls with no inputs, too few, wrong types, deep nesting, wrong states",
    "an error message, or the page's usual output",
)
def test_events_that_are_called_directly(hosted):
    deep = []
    for _ in range(40):
        deep = [deep]
    handlers = {getattr(fn.fn, "__qualname__", ""): number for number, fn in hosted.blocks.fns.items() if fn.queue}
    assert len(handlers) > 20
    forged = {"event_data": {"points": deep, "name": {}}}
    for handler, number in handlers.items():
        needed = len(hosted.blocks.fns[number].inputs)
        for data in ([None] * needed, [{"a": [1]}] * needed, ["<b>"] * needed):
            if handler in SLOW and not needed:
                continue
            well, said = event(hosted.url, number, data, "intruder", **forged)
            assert "<b>" not in json.dumps(said), handler
            assert well or sentence(said), handler
    for data, says in (([], "0 values were sent"), ([deep] * 4, "nested too deeply"), (["\ud800"] * 4, "half a char")):
        well, said = event(hosted.url, handlers["SearchHandlers.show"], data, "intruder")
        assert not well
        assert says in said
    assert call_api(hosted.url, "search", "a colour", "mean", 1, False)[1]["results"]


@attack("the page's events", "unknown event numbers, and numbers of other types", "an error message")
def test_unknown_events(hosted):
    for number in (-1, 10**6, 2**70, "x", 1.5, [1], {}, None):
        well, said = event(hosted.url, number, [], "intruder")
        assert not well
        assert sentence(said)


@attack(
    "points on maps",
    "forged choices: wrong types, indices out of range, unknown kinds, 100,000 points",
    "an error message",
)
def test_forged_points(app_url):
    [chosen] = [
        one["id"]
        for one in json.loads(send(app_url, "/config").body)["dependencies"]
        if one["api_name"].startswith("chosen") and len(one["inputs"]) == 4
    ]
    forged = ([], [[]], ["video"], [["video", 10**9, 0]], [["video", -1, 0]], [["x", 0, 0]], [["video", "0", 0]], {}, 5)
    for points in (
        *forged,
        [["video", 0.5, 0]],
        [["video", 2**70, 0]],
        [["path", 0, 10**9]],
        [["text", 10**9, 0]] * 10**5,
    ):
        data = {"points": points, "name": "../../x"}
        well, said = event(app_url, chosen, ["test", "dits", "mean", None], "somebody", event_data=data)
        assert not well, points
        assert sentence(said)


@attack("tools of assistants (MCP)", "the page's events as tools, resources, prompts", "rejected; none is listed")
def test_unknown_tools(app_url):
    assert {one["name"] for one in tool(app_url, "tools/list")["tools"]} == {name.strip("/") for name in ENDPOINTS}
    for listed in ("resources/list", "resources/templates/list", "prompts/list"):
        assert not any(tool(app_url, listed).values())
    for name in ("add", "leave", "warm", "prepare", "follow", "", "../search"):
        answer = tool(app_url, "tools/call", name=name, arguments={})
        assert answer["isError"]
        assert "nknown tool" in answer["content"][0]["text"]


@attack("the page's events", "direct calls of the weight preparation when no weights are missing", "nothing is trained")
def test_preparation_without_missing_weights(app_url):
    [prepare] = [
        one["id"] for one in json.loads(send(app_url, "/config").body)["dependencies"] if one["api_name"] == "prepare"
    ]
    for _ in range(3):
        well, outputs = event(app_url, prepare, [], "somebody")
        assert well
        assert "Preparing" not in str(outputs)
