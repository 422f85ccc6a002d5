"""Compares the lock with requirements.txt, with its own graph, and with the installed packages."""

import os
import re
import subprocess
import sys
from importlib.metadata import requires, version

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import REPOSITORY
from tools.requirements import LOCK, LockedPackage, read_lock, read_requirements

ROOT = "-r requirements.txt"


@pytest.fixture(scope="module")
def lock():
    return read_lock()


def test_every_requirement_is_locked_within_its_range_and_marker(lock):
    for requirement in read_requirements():
        [locked] = [package for package in lock if package.name == canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(locked.version), requirement
        assert str(locked.marker or "") == str(requirement.marker or ""), requirement
        assert ROOT in locked.via, requirement


def test_every_file_has_a_hash_and_no_host_is_named(lock):
    assert all(package.hashes for package in lock)
    assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", digest) for package in lock for digest in package.hashes)
    assert "://" not in LOCK.read_text(encoding="utf-8")


def test_every_locked_package_is_required(lock):
    required = {canonicalize_name(requirement.name) for requirement in read_requirements()}
    assert required == {package.name for package in lock if ROOT in package.via}
    reached = set(required)
    for _ in lock:
        reached |= {package.name for package in lock if reached.intersection(package.via)}
    assert reached == {package.name for package in lock}
    assert {name for package in lock for name in package.via} <= reached | {ROOT}


def test_installed_packages_are_those_of_the_lock(lock):
    """The packages that requirements.txt leads to, by installed metadata, have the names and releases of the lock."""
    here = {package.name: str(package.version) for package in lock if package.here}
    installed = {name: version(name) for name in closure(read_requirements())}
    if installed != here and not os.environ.get("CI"):
        pytest.skip(f"other releases are installed: {dict(set(installed.items()) ^ set(here.items()))}")
    assert installed == here


def test_a_lock_of_one_package_is_read(tmp_path):
    path = tmp_path / "lock"
    path.write_text(
        "# by hand\n"
        "Some_Name==1.2 ; sys_platform == 'none' \\\n"
        "    --hash=sha256:aa \\\n"
        "    --hash=sha256:bb\n"
        "    # via\n"
        "    #   -r requirements.txt\n"
        "    #   other\n"
        "other==3\n"
        "    # via some-name\n"
    )
    first, second = read_lock(path)
    assert (first.name, str(first.version), first.here) == ("some-name", "1.2", False)
    assert (first.hashes, first.via) == (("sha256:aa", "sha256:bb"), (ROOT, "other"))
    assert second == LockedPackage(second.name, second.version, None, (), ("some-name",))
    assert second.here


def test_make_installs_the_lock_by_its_hashes_and_tests_on_the_same_releases():
    locked = "pip install --quiet --require-hashes --requirement requirements.lock"
    assert locked in commands_of_make("demo")
    assert locked in commands_of_make("test")
    files = "".join(f" --requirement requirements{name}.txt" for name in ("", "-train", "-ray", "-dev"))
    assert f"--constraint nowhere/constraints.txt{files}\n" in commands_of_make("test")
    ranges = commands_of_make("demo", "LOCK=")
    assert "pip install --quiet --requirement requirements.txt" in ranges
    assert "lock" not in ranges


def test_constraints_of_the_tests_are_the_lock_without_hashes(tmp_path):
    [command] = re.findall(r"sed -E '[^']+' requirements\.lock", commands_of_make("test"))
    text = subprocess.run(command, shell=True, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    path = tmp_path / "constraints"
    path.write_text(text)
    assert "--hash" not in text
    constrained, locked = ([(p.name, p.version, p.marker) for p in read_lock(of)] for of in (path, LOCK))
    assert constrained == locked
    assert all(Requirement(line) for line in text.splitlines() if line[:1].isalnum())


def commands_of_make(*arguments):
    command = ["make", "--dry-run", "VENV=nowhere", f"PYTHON={sys.executable}", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout


def closure(requirements):
    """The names of all packages that requirements need on this platform."""
    names, waiting = set(), [(requirement, "") for requirement in requirements]
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        for wanted in {*requirement.extras, ""} if name not in names else requirement.extras:
            waiting += [(Requirement(line), wanted) for line in requires(name) or []]
        names.add(name)
    return names
