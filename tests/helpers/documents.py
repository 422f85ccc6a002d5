"""What stands in the repository's documents: blocks of code, commands, links and headings."""

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
    """A fenced block of code.

    Attributes:
        language: what its fence says first.
        file: what its fence says next: the file that the block is the content of.
        text: its lines.
        line: where it begins, from 1.
    """

    language: str
    file: str
    text: str
    line: int


def documents() -> list[Path]:
    """Every Markdown file that the repository has, or will have once it is added."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [REPOSITORY / name for name in sorted(set(listed.stdout.split("\n"))) if name]


def blocks_of(path: Path) -> list[Block]:
    """The document's blocks of code, in order."""
    found, opened = [], None
    lines: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        fence = _FENCE.match(line)
        if fence is None:
            lines.append(line)
        elif opened is None:
            opened, lines = (fence[1], number), []
        else:
            language, _, file = opened[0].partition(" ")
            found.append(Block(language, file.strip(), "\n".join(lines) + "\n", opened[1]))
            opened = None
    assert opened is None, f"{path.name}: the block of line {opened} is not closed"
    return found


def prose_of(path: Path) -> str:
    """The document without its blocks of code and its front matter."""
    text = re.sub(r"\A---\n.*?\n---\n", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def commands_of(script: str) -> Iterator[list[str]]:
    """The commands of a shell script, each as its words; `&&` parts commands, as lines do."""
    for line in script.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while "&&" in words:
            yield words[: words.index("&&")]
            words = words[words.index("&&") + 1 :]
        if words:
            yield words


def inline_code_of(path: Path) -> list[str]:
    """What the document's prose sets as code."""
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose_of(path))]


def links_of(path: Path) -> list[str]:
    """The targets of the document's links and pictures."""
    return re.findall(r"\]\(([^)\s]+)\)", prose_of(path))


def anchors_of(path: Path) -> set[str]:
    """What `#...` can name in the document, by GitHub's rule: headings in lower case, dashes for spaces."""
    headings = [match[1] for match in map(_HEADING.match, prose_of(path).splitlines()) if match]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
