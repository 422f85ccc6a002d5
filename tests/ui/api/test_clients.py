"""The API from JavaScript, as tools of an assistant (MCP), and from a command line, on the running app."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client

from tests.conftest import REPOSITORY, free_port
from tests.helpers.documents import blocks_of
from tests.helpers.following import ADDRESS
from tests.ui.api.test_endpoints import ENDPOINTS, SENTENCE

JAVASCRIPT = REPOSITORY / "tests" / "javascript"

CALLS = [
    ("/search", {"query": SENTENCE, "method": "xpool", "top": 2}),
    ("/search", {"query": SENTENCE}),
    ("/corpus", {"offset": 227}),
    ("/trajectory", {"query": SENTENCE, "method": "dits-l2", "steps": 4, "noise": 0.5, "seed": 3}),
    ("/gap", {"split": "validation"}),
    ("/evaluate", {"queries": [{"video_id": "api_bfl_flux3_i2v-1", "caption": "two camels"}], "split": "test"}),
    ("/embed", {"texts": ["zwei Hunde", "ein Boot 🛶"], "method": "dits"}),
]

REFUSED = [
    ("/search", {"query": " "}, "The query is empty: describe in a sentence what the video shows."),
    ("/evaluate", {"queries": []}, "The queries must be from 1 to 500, not 0."),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The folder of a JavaScript program with the packages that its lock names, installed from npm's registry."""
    if not shutil.which("node") or not shutil.which("npm"):
        return _unavailable("no node and npm found: install Node.js")
    folder = tmp_path_factory.mktemp("javascript")
    for name in ("package.json", "package-lock.json", ".npmrc", "calls.mjs"):
        shutil.copy(JAVASCRIPT / name, folder)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=0"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    if done.returncode and any(code in done.stderr for code in ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ETIMEDOUT")):
        return _unavailable("npm's registry cannot be reached")
    assert done.returncode == 0, done.stderr
    return folder


def _unavailable(reason):
    if os.environ.get("CI"):
        pytest.fail(reason)
    return pytest.skip(reason)


def test_javascript_gets_what_python_gets(program, app_url, served):
    sent = json.dumps([*CALLS, *(call[:2] for call in REFUSED)])
    command = ["node", "calls.mjs", app_url]
    done = subprocess.run(command, cwd=program, input=sent, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    assert {endpoint for endpoint, _ in CALLS} == set(ENDPOINTS)
    for (endpoint, arguments), found in zip(CALLS, answers, strict=False):
        assert found == {"answer": served.predict(**arguments, api_name=endpoint)}, endpoint
    assert answers[len(CALLS) :] == [{"error": says} for *_, says in REFUSED]


def test_the_javascript_of_the_readme_runs_as_it_stands(program, app_url, served):
    [example] = [block.text for block in blocks_of(REPOSITORY / "README.md") if block.language == "js"]
    (program / "readme.mjs").write_text(example.replace(ADDRESS, app_url.rstrip("/")))
    done = subprocess.run(["node", "readme.mjs"], cwd=program, capture_output=True, text=True, timeout=120)
    found = served.predict(query="two boxers in a ring", top=3, api_name="/search")["results"]
    assert done.stdout.splitlines() == [clip["title"] for clip in found], done.stderr


def test_the_lock_of_javascript_names_no_index():
    lock = json.loads((JAVASCRIPT / "package-lock.json").read_text())["packages"]
    packages = {name: package for name, package in lock.items() if name}
    assert all(
        "resolved" not in package and package["integrity"].startswith("sha512-") for package in packages.values()
    )


def with_tools(app_url, ask):
    """What `ask` makes of a session of an assistant with the running app."""

    async def session():
        address = f"{app_url}gradio_api/mcp/"
        async with streamablehttp_client(address) as (read, write, _), ClientSession(read, write) as opened:
            await opened.initialize()
            return await ask(opened)

    return asyncio.run(session())


def test_the_endpoints_are_tools_and_nothing_else_is_offered(app_url):
    async def offered(session):
        return (
            (await session.list_tools()).tools,
            (await session.list_resources()).resources,
            (await session.list_resource_templates()).resourceTemplates,
            (await session.list_prompts()).prompts,
        )

    tools, *others = with_tools(app_url, offered)
    assert [tool.name for tool in tools] == [name.strip("/") for name in ENDPOINTS]
    assert others == [[], [], []]
    for tool in tools:
        assert len(tool.description) > 80
        assert "file" not in tool.description  # Gradio would add how to upload one
        for name, parameter in tool.inputSchema["properties"].items():
            assert len(parameter["description"]) > 10, (tool.name, name)
    [search] = [tool.inputSchema for tool in tools if tool.name == "search"]
    assert search["required"] == ["query"]
    assert search["properties"]["method"]["enum"] == ["dits", "xpool", "mean"]


def test_tools_answer_what_the_endpoints_do_in_json(app_url, served):
    async def answers(session):
        return [await session.call_tool(endpoint.strip("/"), arguments) for endpoint, arguments in CALLS]

    for (endpoint, arguments), found in zip(CALLS, with_tools(app_url, answers), strict=True):
        [content] = found.content
        assert not found.isError
        assert json.loads(content.text) == served.predict(**arguments, api_name=endpoint), endpoint


def test_tools_say_what_is_wrong_in_a_sentence(app_url):
    calls = [
        ("search", {"query": " "}),
        ("search", {"query": 5}),
        ("search", {}),
        ("show", {"query": "x"}),
        ("warm", {}),
    ]
    says = [
        "The query is empty",
        "5 is not of type 'string'",
        "'query' is a required property",
        "Unknown tool",
        "Unknown",
    ]

    async def answers(session):
        return [await session.call_tool(name, arguments) for name, arguments in calls]

    for sentence, found in zip(says, with_tools(app_url, answers), strict=True):
        assert found.isError
        assert sentence in found.content[0].text


def test_tools_read_no_files(app_url, tmp_path):
    secret = tmp_path / f"{tmp_path.parent.name}-{os.getpid()}.txt"
    secret.write_text("secret")
    file = {"path": str(secret), "meta": {"_type": "gradio.FileData"}}
    query = {"video_id": "a", "caption": "b"}

    async def answers(session):
        return [
            *[await session.call_tool("evaluate", {"queries": [query | file]}) for file in (file, {"nested": [file]})],
            await session.call_tool("embed", {"texts": [str(secret), f"{app_url}gradio_api/info"]}),
        ]

    *refused, embedded = with_tools(app_url, answers)
    assert [(found.isError, found.content[0].text) for found in refused] == [
        (True, "No tool here takes a file: give texts, numbers and ids.")
    ] * 2
    assert json.loads(embedded.content[0].text)["texts"] == [str(secret), f"{app_url}gradio_api/info"]
    assert not list(Path(tempfile.gettempdir(), "gradio").rglob(secret.name))


@pytest.mark.slow
def test_without_the_package_mcp_the_app_runs_and_has_no_tools(demo):
    port = free_port()
    code = f"import sys; sys.modules['mcp'] = None; sys.argv = ['app.py', '--port', '{port}', '--no-warm']\n"
    code += "from ui.command import main; main()"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY)
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                assert urllib.request.urlopen(f"http://127.0.0.1:{port}/").status == 200
                break
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.5)
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/gradio_api/mcp/schema")
        assert error.value.code == 404
    finally:
        process.terminate()
        process.wait(timeout=20)
