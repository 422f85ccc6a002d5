"""The app's endpoints, through gradio_client, on the running app."""

import json
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from tests.conftest import REPOSITORY, first_answer, serve

QUERY = "a dog riding a skateboard"


def test_search_answers_as_the_library_does(served, engine):
    found = served.predict(query=QUERY, method="xpool", top=4, api_name="/search")
    expected = engine.search(QUERY, "xpool", 4).as_dict()
    assert [result["id"] for result in found["results"]] == [result["id"] for result in expected["results"]]
    assert found["results"][0]["score"] == pytest.approx(expected["results"][0]["score"], abs=1e-5)
    assert found["encoder"] == expected["encoder"]


def test_results_link_to_playable_files(served, app_url):
    found = served.predict(query=QUERY, top=1, api_name="/search")
    assert "path" not in found["results"][0]
    request = urllib.request.Request(
        app_url.rstrip("/") + found["results"][0]["video"], headers={"Range": "bytes=0-99"}
    )
    with urllib.request.urlopen(request) as response:
        assert response.status == 206
        assert response.headers["content-type"] == "video/mp4"
        assert b"ftyp" in response.read()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"query": "  "}, "The query is empty"),
        ({"query": QUERY, "top": 0}, "from 1 to 100"),
        ({"query": QUERY, "top": 10**9}, "from 1 to 100"),
        ({"query": QUERY, "method": "magic"}, "no method"),
    ],
)
def test_bad_input_is_one_sentence(served, arguments, says):
    with pytest.raises(AppError, match=says):
        served.predict(**arguments, api_name="/search")


@pytest.mark.parametrize("arguments", [{"query": 5}, {"query": None}, {"query": QUERY, "top": "many"}, {"query": []}])
def test_values_of_the_wrong_type_are_one_sentence(served, arguments):
    with pytest.raises(AppError, match=r"must be a (text|whole number)"):
        served.predict(**arguments, api_name="/search")


@pytest.mark.slow
def test_a_taken_port_is_one_sentence(app_url):
    port = app_url.rsplit(":", 1)[1].strip("/")
    command = [sys.executable, "app.py", "--port", port]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr == (
        f"app.py: The port {port} is taken: stop the program that uses it, or choose another port with --port.\n"
    )


@pytest.mark.slow
def test_missing_weights_are_one_sentence_on_the_page_and_in_the_api(demo, tmp_path):
    process, url = serve("--weights", str(tmp_path))
    try:
        with pytest.raises(AppError, match="The weights are missing: there is no file"):
            first_answer(url)
    finally:
        process.terminate()
        process.wait(timeout=20)


def test_method_names_are_not_rendered_as_html(served):
    with pytest.raises(AppError) as error:
        served.predict(query=QUERY, method="<b>x</b>", api_name="/search")
    assert "<b>" not in str(error.value)


def test_long_query_is_truncated_with_a_notice(served):
    found = served.predict(query="a dog " * 1700, api_name="/search")
    assert "longer than the encoder reads" in found["notice"]


def test_several_people_search_at_once(app_url):
    queries = [QUERY, "a white horse", "a car at night", "cooking in a kitchen"]
    alone = Client(app_url, verbose=False)
    expected = [alone.predict(query=query, api_name="/search")["results"] for query in queries]
    answers = [None] * 4

    def ask(number):
        answers[number] = Client(app_url, verbose=False).predict(query=queries[number], api_name="/search")["results"]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert json.dumps(answers) == json.dumps(expected)


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "app.py", "assets/encoder/config.json", "../../etc/passwd", ".git/HEAD"]
)
def test_serves_no_other_files(app_url, path):
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(f"{app_url}gradio_api/file={path}")
    assert error.value.code in (403, 404)
