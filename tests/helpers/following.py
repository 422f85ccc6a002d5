"""Following a document: its commands are run where that is cheap, and else read by the parsers that would read them.

What is not run is excused by one of `EXCUSES`; what none of the programs here is, is refused.
"""

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import analysis.cli.parser
import dits.cli.parser
import ui.command
import ui.server.serving
from tests.helpers.documents import REPOSITORY, Block, blocks_of, commands_of

EXCUSES: dict[str, Callable[[list[str]], bool]] = {
    "weights are downloaded": lambda words: any("/openai" in word for word in words),
    "a benchmark is needed": lambda words: any("/data/" in word for word in words),
    "several machines are needed": lambda words: any(word == "--ray" or "s3://" in word for word in words),
    "it takes minutes or hours": lambda words: (
        words[0] in ("ablate", "pairs", "prepare", "sources")
        or words[:2] in (["train", "dits"], ["train", "encoder"])
        or "--joint" in words
    ),
}
"""Why a command of dits or analysis is read and not run."""

QUICK = ("search", "data")
"""The commands that take few seconds where they are about the demo corpus and decode nothing."""

ADDRESS = "http://127.0.0.1:7860"
"""Where the documents' app answers."""


_MAINS = {"dits": dits.cli.parser.main, "analysis": analysis.cli.parser.main}
_PARSERS = {"dits": dits.cli.parser._parser, "analysis": analysis.cli.parser._parser}


def excuse(words: list[str]) -> str | None:
    """Why the words of a command, after `python -m dits`, are not run."""
    return next((reason for reason, holds in EXCUSES.items() if holds(words)), None)


def read(words: list[str]) -> None:
    """Reads a command with the parser that would read it.

    Raises:
        AssertionError: the program is unknown, or would refuse the words.
    """
    match words:
        case ["python", "-m", ("dits" | "analysis") as package, *rest]:
            _parse(package, rest)
        case ["python", "-m", module, *_]:
            assert (REPOSITORY / (module.replace(".", "/") + ".py")).is_file(), f"there is no module {module}"
        case ["python", "app.py", *rest]:
            _parse_app(rest)
        case ["torchrun", *rest]:
            _parse_torchrun(rest)
        case ["make", target, *_]:
            rules = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
            assert re.search(rf"^{re.escape(target)}:", rules, re.MULTILINE), f"make knows no {target}"
        case ["pip", "install", "-r", file]:
            assert (REPOSITORY / file).is_file(), f"there is no {file}"
        case ["ray", "start", "--address", _]:
            pass
        case ["npm", "install", *packages]:
            assert packages
        case ["source", ".venv/bin/activate"]:
            pass
        case _:
            raise AssertionError(f"nobody follows this kind of command: {' '.join(words)}")


class World:
    """A place where a document's commands find what they name, and its code what code before it defined.

    Attributes:
        folder: the current one.
        address: of the app that is asked where the document asks its own; None: it is not asked.
    """

    def __init__(self, folder: Path, address: str | None = None) -> None:
        self.folder, self.address = folder, address
        self._names: dict[str, Any] = {"__name__": "__main__"}
        self._printed = ""

    def follow(self, document: Path, slow: bool) -> list[str]:
        """Follows a document from its beginning; returns what was run. `slow`: also what takes longer."""
        done: list[str] = []
        for block in blocks_of(document):
            try:
                done += self._follow(block, slow)
            except Exception as error:
                raise AssertionError(f"{document.name}, line {block.line}: {error}") from error
        return done

    def _follow(self, block: Block, slow: bool) -> list[str]:
        match block.language:
            case "sh":
                return self._commands(block.text, slow)
            case "python":
                return self._code(block.text)
            case "bash":
                return self._script(block.text)
            case "text":
                assert_prints(self._printed, block.text)
            case "csv":
                _write_table(self.folder / block.file, block.text)
            case "js":
                _check_javascript(block.text)
            case "json":
                json.loads(block.text)
            case "bibtex":
                assert block.text.count("{") == block.text.count("}")
            case language:
                raise AssertionError(f"nobody follows a block of {language or 'no language'}")
        return []

    def _commands(self, text: str, slow: bool) -> list[str]:
        done, self._printed = [], ""
        for words in commands_of(text):
            read(words)
            if (
                words[1:2] == ["-m"]
                and words[2] in _MAINS
                and excuse(words[3:]) is None
                and (slow or _is_quick(words[3:]))
            ):
                self._printed += _run(words[2], words[3:])
                done.append(" ".join(words))
        return done

    def _code(self, text: str) -> list[str]:
        if ADDRESS in text and self.address is None:
            compile(text, "document", "exec")
            return []
        exec(compile(text.replace(ADDRESS, self.address or ADDRESS), "document", "exec"), self._names)
        return [text]

    def _script(self, text: str) -> list[str]:
        """A script that asks the page's app: run where there is one, and read by the shell where there is none."""
        asked = self.address is not None and shutil.which("curl") is not None
        script = text.replace(ADDRESS, (self.address or ADDRESS).rstrip("/"))
        ended = subprocess.run(["bash", *([] if asked else ["-n"])], input=script, text=True, capture_output=True)
        assert ended.returncode == 0, ended.stderr
        assert not asked or "event: complete" in ended.stdout, ended.stdout
        return [text] if asked else []


def _is_quick(words: list[str]) -> bool:
    return words[0] in QUICK and not {"--corpus", "--decode"} & set(words)


def _run(package: str, words: list[str]) -> str:
    """What the command prints; it must end well."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        code = _MAINS[package]([os.path.expanduser(word) for word in words])
    assert code == 0, f"{' '.join(words)} ended with {code}"
    return output.getvalue()


def assert_prints(printed: str, shown: str) -> None:
    """What a command prints is what the document shows, up to the last digits of numbers."""
    assert len(printed.split()) == len(shown.split()), f"it prints\n{printed}"
    for found, expected in zip(printed.split(), shown.split(), strict=True):
        if re.fullmatch(r"[+-]?\d+\.\d+", expected):
            assert float(found) == pytest.approx(float(expected), rel=0.01, abs=0.051), f"it prints\n{printed}"
        else:
            assert found == expected, f"it prints\n{printed}"


def recorded(target: str, folder: Path) -> list[list[str]]:
    """The commands that `make TARGET` would run with Python and the linters, by the real make, each as its words.

    In an empty folder, where these programs are scripts that write down what they are asked.
    """
    for file in (REPOSITORY / "Makefile", *REPOSITORY.glob("requirements*")):
        shutil.copy(file, folder)
    programs, record = folder / ".venv" / "bin", folder / "record"
    programs.mkdir(parents=True)
    for name in ("python", "ruff", "mypy", "uv"):
        script = programs / name
        script.write_text(
            f"#!{sys.executable}\nimport json, sys\n"
            f"print(json.dumps([{name!r}, *sys.argv[1:]]), file=open({str(record)!r}, 'a'))\n"
        )
        script.chmod(0o755)
    subprocess.run(["make", target], cwd=folder, check=True, capture_output=True, text=True)
    return [json.loads(line) for line in record.read_text().splitlines()]


def _parse(package: str, words: list[str]) -> None:
    with _refusals():
        _PARSERS[package]().parse_args(words)


def _parse_app(words: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch, _refusals():
        patch.setattr(ui.server.serving, "launch", lambda settings: None)
        patch.setattr(ui.command, "listen_for_the_end", lambda: None)
        patch.setattr(ui.command, "leave", lambda code: None)  # it would end the tests, as if all had passed
        patch.setattr(sys, "argv", ["app.py", *words])
        ui.command.main()


def _parse_torchrun(words: list[str]) -> None:
    from torch.distributed.run import get_args_parser

    with _refusals():
        args = get_args_parser().parse_args(words)
    assert args.module
    read(["python", "-m", args.training_script, *args.training_script_args])


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """What argparse refuses is an AssertionError with what it says."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            yield
    except SystemExit as error:
        raise AssertionError(said.getvalue().strip().splitlines()[-1]) from error


def _write_table(path: Path, text: str) -> None:
    """The file, and beside it a short video for each of its first column."""
    from tests.helpers.videos import stamp, write_video

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    for number, name in enumerate(dict.fromkeys(line.split(",")[0] for line in text.splitlines()[1:])):
        frames = [stamp(20 * number + n, 64, 48) for n in range(12)]
        write_video((path.parent / name).with_suffix(".mp4"), frames, size=(64, 48))


def _check_javascript(text: str) -> None:
    node = shutil.which("node")
    if node:
        checked = subprocess.run(
            [node, "--check", "--input-type=module", "-"], input=text, text=True, capture_output=True
        )
        assert checked.returncode == 0, checked.stderr
