"""The version, the changelog and the citation agree."""

import re

import pytest
import yaml

import dits
from tests.helpers.documents import REPOSITORY, blocks_of
from ui.tabs.about import about_html

CHANGES = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.fixture
def citation():
    return yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))


def test_the_citation_has_what_version_1_2_of_the_format_requires(citation):
    assert citation["cff-version"] == "1.2.0"
    paper = citation["preferred-citation"]
    for entry in (citation, paper):
        assert entry["title"]
        assert entry["authors"]
        assert all(set(author) <= {"name", "given-names", "family-names"} for author in entry["authors"])
    assert citation["message"]
    assert (citation["type"], paper["type"]) == ("software", "conference-paper")
    assert citation["license"] == "MIT"


def test_the_readme_cites_the_same_paper(citation):
    (entry,) = [block.text for block in blocks_of(REPOSITORY / "README.md") if block.language == "bibtex"]
    fields = {name: " ".join(value.split()) for name, value in re.findall(r"(\w+)\s*= \{([^}]*)\}", entry)}
    paper = citation["preferred-citation"]
    authors = [f"{author['family-names']}, {author['given-names']}" for author in paper["authors"]]
    assert (fields["title"], fields["author"].split(" and ")) == (paper["title"], authors)
    assert int(fields["year"]) == paper["year"]


def test_the_about_tab_shows_the_entry_of_the_readme():
    (entry,) = [block.text for block in blocks_of(REPOSITORY / "README.md") if block.language == "bibtex"]
    assert entry.strip() in about_html()


def test_one_version_everywhere(citation):
    released = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d$", CHANGES, re.MULTILINE)
    assert released[0] == dits.__version__ == citation["version"]
    assert released == sorted(released, key=lambda version: [int(part) for part in version.split(".")], reverse=True)


def test_the_changelog_begins_with_unreleased_changes():
    headings = re.findall(r"^## (.*)$", CHANGES, re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    assert len(set(headings)) == len(headings)
