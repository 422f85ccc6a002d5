"""The library reference: everything public has a docstring, and the pages build without a warning."""

import ast
import importlib
import re
import subprocess
import sys

import pytest

from tests.helpers.documents import REPOSITORY

MODULES = sorted(path for package in ("dits", "analysis") for path in (REPOSITORY / package).rglob("*.py"))
NAME = re.compile(r"`((?:dits|analysis)(?:\.\w+)+)`")
"""References to other names of the packages in docstrings."""

DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def name_of(path):
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


def public(node, prefix=""):
    """The public functions, classes and methods inside a node, with their names."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, DEFINITIONS) and not child.name.startswith("_"):
            yield prefix + child.name, child
            if isinstance(child, ast.ClassDef):
                yield from public(child, f"{prefix}{child.name}.")


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_everything_public_has_a_docstring(path):
    module = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(module)
    assert [name for name, node in public(module) if not ast.get_docstring(node)] == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_names_in_docstrings_exist(path):
    module = ast.parse(path.read_text(encoding="utf-8"))
    described = [module, *(node for _, node in public(module))]
    for name in NAME.findall("\n".join(ast.get_docstring(node) or "" for node in described)):
        assert exists(name), name


def exists(name):
    """Whether a dotted name is a module, or a name in a module or class."""
    owner, _, last = name.rpartition(".")
    try:
        importlib.import_module(name)
        return True
    except ModuleNotFoundError:
        pass
    try:
        return hasattr(importlib.import_module(owner), last)
    except ModuleNotFoundError:
        outer, _, inner = owner.rpartition(".")
        return hasattr(getattr(importlib.import_module(outer), inner), last)


@pytest.mark.slow
def test_the_reference_builds_without_a_warning(tmp_path):
    built = subprocess.run(
        [sys.executable, REPOSITORY / "docs" / "reference.py", tmp_path], capture_output=True, text=True
    )
    assert built.returncode == 0, built.stdout + built.stderr
    assert built.stdout == f"Wrote {tmp_path / 'index.html'}\n"
    for path in MODULES:
        if path.name != "__main__.py":
            page = tmp_path / name_of(path).replace(".", "/")
            assert page.with_suffix(".html").is_file(), page
    sampler = (tmp_path / "dits" / "models" / "sampler.html").read_text(encoding="utf-8")
    assert "DitsSampler" in sampler
    assert "Equation 8" in sampler
