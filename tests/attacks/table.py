"""Writes the table of SECURITY.md from the tests: `python -m tests.attacks.table`."""

import inspect
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from dits.common.files import atomic_path

PAGE = Path(__file__).resolve().parents[2] / "SECURITY.md"
BEGIN, END = "<!-- attacks: python -m tests.attacks.table -->", "<!-- end of the attacks -->"

MODULES = ("paths", "urls", "markup", "sizes", "sessions", "origins", "internals", "files")
"""The test modules in the order of the table, without `test_`."""


def main() -> None:
    """Writes the table."""
    page = written(PAGE.read_text(encoding="utf-8"))
    with atomic_path(PAGE) as temporary:
        temporary.write_text(page, encoding="utf-8")


def written(page: str) -> str:
    """Return the page with a new table between its two marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{PAGE.name} lacks the marks {BEGIN} and {END}.")
    return f"{before}{BEGIN}\n{''.join(map(_section, modules()))}\n{END}{after}"


def modules() -> Iterator[ModuleType]:
    """The test modules in the order of the table."""
    return (import_module(f"tests.attacks.test_{name}") for name in MODULES)


def attacks_of(module: ModuleType) -> list[Callable[..., Any]]:
    """The tests of a module."""
    return [test for name, test in inspect.getmembers(module, inspect.isfunction) if name.startswith("test_")]


def _section(module: ModuleType) -> str:
    """The section of a module: its subject, and a row for each attack."""
    in_order = sorted(attacks_of(module), key=lambda test: test.__code__.co_firstlineno)
    rows = "".join(_row(test) for test in in_order)
    subject = inspect.getdoc(module).partition("\n")[0]
    where = f"tests/attacks/{Path(module.__file__).name}"
    return f"\n**{subject}** ([{where}]({where}))\n\n| target | attempt | result |\n|---|---|---|\n{rows}"


def _row(test: Callable[..., Any]) -> str:
    attack = test.attack
    return f"| {attack.on} | {attack.by} | {attack.answer} |\n"


if __name__ == "__main__":
    main()
