"""The parts of the repository's documents: code blocks, commands, links and headings."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

_FENCE = re.compile(r"^```(.*)$")
_HEADING = re.compile(r"^#+ (.*)$")


@dataclass(frozen=True)
class Block:
    """A fenced code block.

    Attributes:
        language: the first word of its fence.
        file: the rest of its fence: the name of the file with this content.
        text: its content.
        line: the line number of its fence, from 1.
    """

    language: str
    file: str
    text: str
    line: int


def documents() -> list[Path]:
    """All Markdown files of the repository, including new files that are not added yet."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [REPOSITORY / name for name in sorted(set(listed.stdout.split("\n"))) if name]


def blocks_of(path: Path) -> list[Block]:
    """The document's code blocks, in order."""
    blocks, opened = [], None
    lines: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        fence = _FENCE.match(line)
        if fence is None:
            lines.append(line)
        elif opened is None:
            opened, lines = (fence[1], number), []
        else:
            language, _, file = opened[0].partition(" ")
            blocks.append(Block(language, file.strip(), "\n".join(lines) + "\n", opened[1]))
            opened = None
    assert opened is None, f"{path.name}: the block of line {opened} is not closed"
    return blocks


def prose_of(path: Path) -> str:
    """The document without its code blocks and its front matter."""
    text = re.sub(r"\A---\n.*?\n---\n", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def commands_of(script: str) -> Iterator[list[str]]:
    """The commands of a shell script, each as its words; `&&` and line ends separate commands."""
    for line in script.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while "&&" in words:
            yield words[: words.index("&&")]
            words = words[words.index("&&") + 1 :]
        if words:
            yield words


def inline_code_of(path: Path) -> list[str]:
    """The inline code of the document's prose."""
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose_of(path))]


def links_of(path: Path) -> list[str]:
    """The targets of the document's links and pictures."""
    return re.findall(r"\]\(([^)\s]+)\)", prose_of(path))


def anchors_of(path: Path) -> set[str]:
    """The document's anchors, by GitHub's rule: headings in lower case, with dashes instead of spaces."""
    headings = [match[1] for match in map(_HEADING.match, prose_of(path).splitlines()) if match]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
