"""The table in SECURITY.md is that of the tests, and no test is missing in it."""

from pathlib import Path

from tests.attacks.attack import Attack
from tests.attacks.table import MODULES, PAGE, attacks_of, modules, written


def test_the_table_is_as_its_command_writes_it():
    page = PAGE.read_text(encoding="utf-8")
    assert written(page) == page


def test_every_test_says_what_it_attacks():
    files = {path.stem for path in Path(__file__).parent.glob("test_*.py")} - {"test_table"}
    assert files == {f"test_{name}" for name in MODULES}
    for module in modules():
        assert attacks_of(module)
        for test in attacks_of(module):
            said = getattr(test, "attack", None)
            assert isinstance(said, Attack), test.__name__
            assert all(part and "|" not in part and "\n" not in part for part in (said.on, said.by, said.answer))
