"""What a test of this package says of itself, for the table in SECURITY.md."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

Test = TypeVar("Test", bound=Callable[..., Any])


@dataclass(frozen=True)
class Attack:
    """An attack.

    Attributes:
        on: what is attacked.
        by: what is tried.
        answer: what comes of it.
    """

    on: str
    by: str
    answer: str


def attack(on: str, by: str, answer: str) -> Callable[[Test], Test]:
    """Says what a test attacks; see `Attack`."""

    def registered(test: Test) -> Test:
        test.attack = Attack(on, by, answer)  # type: ignore[attr-defined]
        return test

    return registered
