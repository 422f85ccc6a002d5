"""Descriptions of the tests of this package, for the table in SECURITY.md."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

Test = TypeVar("Test", bound=Callable[..., Any])


@dataclass(frozen=True)
class Attack:
    """An attack.

    Attributes:
        on: the target.
        by: the attempt.
        answer: the result.
    """

    on: str
    by: str
    answer: str


def attack(on: str, by: str, answer: str) -> Callable[[Test], Test]:
    """Decorator that describes the attack of a test; see `Attack`."""

    def registered(test: Test) -> Test:
        test.attack = Attack(on, by, answer)  # type: ignore[attr-defined]
        return test

    return registered
