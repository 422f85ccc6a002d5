"""A hosted app with a malicious corpus, the target of the attacks."""

import shutil

import pytest

from tests.browser.conftest import browser  # noqa: F401 - a fixture
from tests.helpers.own_videos import running, uploaded, wait_for, write_clips

MARKUP = '"><img src=x onerror="window.hit=1"><script>window.hit=2</script>'
"""Runs if it is not escaped."""


@pytest.fixture(scope="package")
def hostile_corpus(tiny_corpus, tmp_path_factory):
    """A corpus of six clips whose ids and captions are markup and formulas."""
    folder = tmp_path_factory.mktemp("hostile") / "corpus"
    folder.mkdir()
    lines = ["clip,group,split,caption"]
    for number in range(6):
        name = f"<img src=x onerror=window.hit={number}>'&quot;"
        shutil.copy(tiny_corpus / f"clip{number}.mp4", folder / f"{name}.mp4")
        split = ("train", "validation", "test")[number % 3]
        caption = f"=HYPERLINK({number}) {MARKUP}".replace('"', '""')
        lines.append(f'{name},g{number},{split},"{caption}"')
    (folder / "captions.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="package")
def hosted(hostile_corpus, tiny_folder):
    """A hosted app over the malicious corpus."""
    with running(corpus=str(hostile_corpus), encoder=f"local-dir:{tiny_folder}", hosted=True) as app:
        yield app


@pytest.fixture(scope="package")
def victim(hosted, tmp_path_factory):
    """The session and the library of a visitor who has added a video."""
    from tests.helpers.own_videos import called

    clip = write_clips(tmp_path_factory.mktemp("victim")) / "red.mp4"
    well, output = called(hosted, "add", ["", [uploaded(hosted, clip)], "not at all", 10], "victim")
    assert well, output
    libraries = hosted.sources.libraries
    wait_for(lambda: not libraries.find("victim").runs.running)
    return "victim", libraries.find("victim")
