"""The table in SECURITY.md matches the tests, and contains all of them."""

from pathlib import Path

from tests.attacks.attack import Attack
from tests.attacks.table import MODULES, PAGE, attacks_of, modules, written


def test_the_table_is_up_to_date():
    page = PAGE.read_text(encoding="utf-8")
    assert written(page) == page


def test_every_test_describes_its_attack():
    files = {path.stem for path in Path(__file__).parent.glob("test_*.py")} - {"test_table"}
    assert files == {f"test_{name}" for name in MODULES}
    for module in modules():
        assert attacks_of(module)
        for test in attacks_of(module):
            found = getattr(test, "attack", None)
            assert isinstance(found, Attack), test.__name__
            assert all(part and "|" not in part and "\n" not in part for part in (found.on, found.by, found.answer))
