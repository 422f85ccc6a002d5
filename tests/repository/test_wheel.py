"""The library as pip installs it: a wheel with what assets/ holds, and the command `dits` in any folder."""

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from dits.cli.parser import main
from dits.common.files import ASSETS
from tests.conftest import REPOSITORY

SEARCH = ["search", "two boxers in a ring", "--top", "3", "--json"]
PACKAGES = ("dits", "analysis")
NOT_IN_THE_WHEEL = {".png"}  # pictures of the README


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", REPOSITORY, "--no-deps", "--no-build-isolation", "--wheel-dir", folder)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_every_module_and_all_that_is_shipped(wheel):
    sources = [path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.*")]
    modules = {path.relative_to(REPOSITORY).as_posix() for path in sources if path.parent.name != "__pycache__"}
    shipped = [path for path in ASSETS.rglob("*") if path.is_file() and path.suffix not in NOT_IN_THE_WHEEL]
    expected = {*modules, *(f"dits/assets/{path.relative_to(ASSETS).as_posix()}" for path in shipped)}
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert len(shipped) > 20
    assert held == expected


def test_the_installed_command_finds_in_another_folder_what_the_repository_finds(wheel, demo, tmp_path, capsys):
    """In an environment of its own, to which this one lends the packages that the wheel requires."""
    program = environment(tmp_path / "venv")
    lent = Path(sysconfig.get_path("purelib", vars={"base": str(tmp_path / "venv")})) / "lent.pth"
    lent.write_text(sysconfig.get_path("purelib"))
    pip("--python", program, "install", "--no-deps", "--no-index", wheel)
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "analysis").mkdir(parents=True)
    (elsewhere / "analysis" / "__init__.py").touch()  # a package of the same name, but not ours
    found = run(program.parent / "dits", *SEARCH, cwd=elsewhere)
    assert main(SEARCH) == 0
    assert json.loads(found) == json.loads(capsys.readouterr().out)
    assert run(program.parent / "dits", "--help", cwd=elsewhere).startswith("usage: dits ")
    assert " search " in run(program, "-m", "dits", "--help", cwd=elsewhere)
    code = "import dits; print(dits.load_engine.__module__)"
    assert run(program, "-c", code, cwd=elsewhere) == "dits.search.loading\n"


@pytest.mark.slow
def test_an_empty_environment_needs_nothing_but_pip_install(tmp_path):
    program = environment(tmp_path / "venv")
    pip("--python", program, "install", "--constraint", constraints(tmp_path), REPOSITORY)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    first = json.loads(run(program.parent / "dits", *SEARCH, cwd=elsewhere))["results"][0]
    assert (first["rank"], first["id"]) == (1, "api_kling_v3_video-1")


def constraints(folder):
    """The lock without its hashes, as the Makefile makes it."""
    path, lines = folder / "constraints.txt", (REPOSITORY / "requirements.lock").read_text().splitlines()
    path.write_text("\n".join(line.removesuffix(" \\") for line in lines if not line.startswith("    --hash")))
    return path


def environment(folder):
    """The interpreter of a new environment without any package."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    return folder / "bin" / "python"


def pip(*arguments):
    subprocess.run([sys.executable, "-m", "pip", "--quiet", *map(str, arguments)], check=True)


def run(program, *arguments, cwd):
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [program, *arguments], cwd=cwd, env=own, capture_output=True, text=True, check=True, timeout=300
    ).stdout
