"""Checks documents: runs their cheap commands and their code, and parses all commands with their own parsers.

`SKIP_REASONS` lists why a command is only parsed. Commands of unknown programs are errors.
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

SKIP_REASONS: dict[str, Callable[[list[str]], bool]] = {
    "weights are downloaded": lambda words: any("/openai" in word for word in words),
    "a benchmark is needed": lambda words: any("/data/" in word for word in words),
    "several machines are needed": lambda words: any(word == "--ray" or "s3://" in word for word in words),
    "it takes minutes or hours": lambda words: (
        words[0] in ("ablate", "pairs", "prepare", "sources")
        or words[:2] in (["train", "dits"], ["train", "encoder"])
        or "--joint" in words
    ),
}
"""Reasons to parse a command of dits or analysis without running it."""

QUICK = ("search", "data")
"""Commands that take few seconds on the demo corpus, if they decode nothing."""

ADDRESS = "http://127.0.0.1:7860"
"""The address of the app in the documents."""

_MAINS = {"dits": dits.cli.parser.main, "analysis": analysis.cli.parser.main}
_PARSERS = {"dits": dits.cli.parser._parser, "analysis": analysis.cli.parser._parser}


def skip_reason(words: list[str]) -> str | None:
    """The reason not to run a command, given its words after `python -m dits`; None if it is run."""
    return next((reason for reason, holds in SKIP_REASONS.items() if holds(words)), None)


def parse_command(words: list[str]) -> None:
    """Parses a command with its program's parser.

    Raises:
        AssertionError: the program is unknown, or refuses the arguments.
    """
    match words:
        case ["python", "-m", ("dits" | "analysis") as package, *rest] | [("dits" as package), *rest]:
            _parse(package, rest)
        case ["python", "-m", module, *_]:
            assert (REPOSITORY / (module.replace(".", "/") + ".py")).is_file(), f"there is no module {module}"
        case ["python", "app.py", *rest]:
            _parse_app(rest)
        case ["torchrun", *rest]:
            _parse_torchrun(rest)
        case ["make", target, *_]:
            rules = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
            assert re.search(rf"^{re.escape(target)}:", rules, re.MULTILINE), f"make has no target {target}"
        case ["pip", "install", "-r", file] | ["pip", "install", "." as file]:
            assert (REPOSITORY / file).exists(), f"there is no {file}"
        case ["ray", "start", "--address", _]:
            pass
        case ["npm", "install", *packages]:
            assert packages
        case ["source", ".venv/bin/activate"]:
            pass
        case _:
            raise AssertionError(f"this kind of command is not supported: {' '.join(words)}")


class DocumentRunner:
    """Runs a document's commands and code, with one namespace for all of its Python code.

    Attributes:
        folder: the current folder.
        address: the running app to use instead of the document's; None: code that needs the app is only compiled.
    """

    def __init__(self, folder: Path, address: str | None = None) -> None:
        self.folder, self.address = folder, address
        self._names: dict[str, Any] = {"__name__": "__main__"}
        self._printed = ""

    def run(self, document: Path, slow: bool) -> list[str]:
        """Runs a document from its beginning, with the slow commands if `slow`; returns what was run."""
        done: list[str] = []
        for block in blocks_of(document):
            try:
                done += self._run_block(block, slow)
            except Exception as error:
                raise AssertionError(f"{document.name}, line {block.line}: {error}") from error
        return done

    def _run_block(self, block: Block, slow: bool) -> list[str]:
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
                raise AssertionError(f"a block of {language or 'no language'} is not supported")
        return []

    def _commands(self, text: str, slow: bool) -> list[str]:
        done, self._printed = [], ""
        for words in commands_of(text):
            parse_command(words)
            match words:
                case ["python", "-m", ("dits" | "analysis") as package, *rest] | [("dits" as package), *rest]:
                    runs = skip_reason(rest) is None and (slow or _is_quick(rest))
                case _:
                    runs = False
            if runs:
                self._printed += _run(package, rest)
                done.append(" ".join(words))
        return done

    def _code(self, text: str) -> list[str]:
        if ADDRESS in text and self.address is None:
            compile(text, "document", "exec")
            return []
        exec(compile(text.replace(ADDRESS, self.address or ADDRESS), "document", "exec"), self._names)
        return [text]

    def _script(self, text: str) -> list[str]:
        """Runs a script that calls the app; if there is no app or no curl, the shell only parses it."""
        runs = self.address is not None and shutil.which("curl") is not None
        script = text.replace(ADDRESS, (self.address or ADDRESS).rstrip("/"))
        process = subprocess.run(["bash", *([] if runs else ["-n"])], input=script, text=True, capture_output=True)
        assert process.returncode == 0, process.stderr
        assert not runs or "event: complete" in process.stdout, process.stdout
        return [text] if runs else []


def _is_quick(words: list[str]) -> bool:
    return words[0] in QUICK and not {"--corpus", "--decode"} & set(words)


def _run(package: str, words: list[str]) -> str:
    """The output of a command, which must succeed."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        code = _MAINS[package]([os.path.expanduser(word) for word in words])
    assert code == 0, f"{' '.join(words)} exited with {code}"
    return output.getvalue()


def assert_prints(printed: str, shown: str) -> None:
    """Asserts that a command's output equals the document's, up to the last digits of numbers."""
    assert len(printed.split()) == len(shown.split()), f"it prints\n{printed}"
    for word, expected in zip(printed.split(), shown.split(), strict=True):
        if re.fullmatch(r"[+-]?\d+\.\d+", expected):
            assert float(word) == pytest.approx(float(expected), rel=0.01, abs=0.051), f"it prints\n{printed}"
        else:
            assert word == expected, f"it prints\n{printed}"


def commands_of_make(target: str, folder: Path) -> list[list[str]]:
    """The commands with Python and the linters that the real make runs for a target, each as its words.

    Make runs in an empty folder, in which these programs are scripts that record their arguments.
    """
    for file in (REPOSITORY / "Makefile", *REPOSITORY.glob("requirements*")):
        shutil.copy(file, folder)
    programs, record = folder / ".venv" / "bin", folder / "record"
    programs.mkdir(parents=True)
    for name in ("python", "ruff", "mypy", "lint-imports", "uv"):
        script = programs / name
        script.write_text(
            f"#!{sys.executable}\nimport json, sys\n"
            f"print(json.dumps([{name!r}, *sys.argv[1:]]), file=open({str(record)!r}, 'a'))\n"
        )
        script.chmod(0o755)
    subprocess.run(["make", target], cwd=folder, check=True, capture_output=True, text=True)
    return [json.loads(line) for line in record.read_text().splitlines()]


def _parse(package: str, words: list[str]) -> None:
    with _parser_errors():
        _PARSERS[package]().parse_args(words)


def _parse_app(words: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch, _parser_errors():
        patch.setattr(ui.server.serving, "launch", lambda settings: None)
        patch.setattr(ui.command, "listen_for_shutdown", lambda: None)
        patch.setattr(ui.command, "exit_process", lambda code: None)  # it would end the tests with success
        patch.setattr(sys, "argv", ["app.py", *words])
        ui.command.main()


def _parse_torchrun(words: list[str]) -> None:
    from torch.distributed.run import get_args_parser

    with _parser_errors():
        args = get_args_parser().parse_args(words)
    assert args.module
    parse_command(["python", "-m", args.training_script, *args.training_script_args])


@contextlib.contextmanager
def _parser_errors() -> Iterator[None]:
    """Turns an error of argparse into an AssertionError with its message."""
    stderr = io.StringIO()
    try:
        with contextlib.redirect_stderr(stderr):
            yield
    except SystemExit as error:
        raise AssertionError(stderr.getvalue().strip().splitlines()[-1]) from error


def _write_table(path: Path, text: str) -> None:
    """Writes the file, and beside it a short video for each name in its first column."""
    from tests.helpers.videos import stamp, write_video

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    for number, name in enumerate(dict.fromkeys(line.split(",")[0] for line in text.splitlines()[1:])):
        frames = [stamp(20 * number + n, 64, 48) for n in range(12)]
        write_video((path.parent / name).with_suffix(".mp4"), frames, size=(64, 48))


def _check_javascript(text: str) -> None:
    node = shutil.which("node")
    if node:
        command = [node, "--check", "--input-type=module", "-"]
        process = subprocess.run(command, input=text, text=True, capture_output=True)
        assert process.returncode == 0, process.stderr
