"""Every package and every asset has a reviewed licence."""

import re
import subprocess
from email import message_from_string
from importlib.metadata import PackageNotFoundError, metadata

import pytest

from tests.conftest import REPOSITORY
from tools.licences import LIST, is_accepted, licences_page, metadata_licence, read_review
from tools.requirements import read_lock

ROW = re.compile(r"^\| ([a-z0-9-]+) \| ([0-9][^ |]*) \| ([^|]+) \|", re.MULTILINE)


@pytest.fixture(scope="module")
def listed():
    return {name: (version, licence) for name, version, licence in ROW.findall(LIST.read_text(encoding="utf-8"))}


def test_every_package_of_the_lock_is_listed_with_an_accepted_licence(listed):
    assert {name: version for name, (version, _) in listed.items()} == {p.name: str(p.version) for p in read_lock()}
    accepted = read_review()["accepted"]
    assert {name: licence for name, (_, licence) in listed.items() if not is_accepted(licence, accepted)} == {}


def test_listed_licences_are_those_of_the_metadata(listed):
    """For installed packages: if the metadata are exact, the review must not state another licence."""
    reviewed = read_review()["read"]
    exact = 0
    for name, (_, licence) in listed.items():
        try:
            from_metadata = metadata_licence(metadata(name))
        except PackageNotFoundError:
            continue
        exact += from_metadata is not None
        assert from_metadata is None or (from_metadata == licence and name not in reviewed), name
    assert exact > 80
    assert set(reviewed) <= set(listed)


def test_the_list_equals_the_output_of_its_command(listed):
    lock, licences = read_lock(), {name: licence for name, (_, licence) in listed.items()}
    assert licences_page(lock, licences, read_review()) == LIST.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("licence", "accepted"),
    [
        ("MIT", True),
        ("MIT AND (Apache-2.0 OR BSD-3-Clause)", True),
        ("MIT AND GPL-3.0-only", False),
        ("AGPL-3.0-or-later", False),
        ("", False),
        (None, False),
    ],
)
def test_a_licence_is_accepted_when_all_of_its_parts_are(licence, accepted):
    assert is_accepted(licence, read_review()["accepted"]) is accepted


@pytest.mark.parametrize(
    ("lines", "licence"),
    [
        (["License-Expression: MIT"], "MIT"),
        (["License: Apache-2.0"], "Apache-2.0"),
        (["License: MIT License", "Classifier: License :: OSI Approved :: MIT License"], "MIT"),
        (["Classifier: License :: OSI Approved :: BSD License"], None),
        (["License: BSD"], None),
        (["License: see the file"], None),
        (["Name: nothing"], None),
    ],
)
def test_metadata_state_a_licence_or_none(lines, licence):
    assert metadata_licence(message_from_string("\n".join(lines) + "\n")) == licence


def test_every_asset_has_a_notice():
    files = subprocess.run(["git", "ls-files", "assets"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    folders = {path.split("/")[1] for path in files.stdout.split() if path.count("/") > 1}
    without = {folder for folder in folders if not (REPOSITORY / "assets" / folder / "NOTICE.md").is_file()}
    assert without == {"recipes"}  # our settings
    text = LIST.read_text(encoding="utf-8")
    assert all(f"(assets/{folder}/NOTICE.md)" in text for folder in folders - without)
