"""Checks of what a client of the API asked for: anything may have been sent, whatever the types say."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

from dits.common.errors import require

T = TypeVar("T")


def text(value: Any, what: str) -> str:
    """A text; raises InputError where it is none."""
    require(isinstance(value, str), f"{what} must be a text.")
    return str(value)


def flag(value: Any, what: str) -> bool:
    """True or false; raises InputError for anything else."""
    require(isinstance(value, bool), f"{what} must be true or false.")
    return bool(value)


def whole(value: Any, what: str, least: int, most: int) -> int:
    """A whole number within bounds, which 5.0 is too; raises InputError where it is none."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    require(number and (isinstance(value, int) or value.is_integer()), f"{what} must be a whole number.")
    require(least <= value <= most, f"{what} must be from {least} to {most}, not {_shortened(value)}.")
    return int(value)


def number(value: Any, what: str, least: float, most: float) -> float:
    """A number within bounds; raises InputError where it is none."""
    require(isinstance(value, int | float) and not isinstance(value, bool), f"{what} must be a number.")
    require(least <= value <= most, f"{what} must be a number from {least:g} to {most:g}, not {_shortened(value)}.")
    return float(value)


def optional(check: Callable[..., T], value: Any, *how: Any) -> T | None:
    """What `check` makes of a value; None where there is none."""
    return None if value is None else check(value, *how)


def items(value: Any, what: str, most: int) -> list[Any]:
    """A list of 1 to `most` things; raises InputError where it is none."""
    require(isinstance(value, list), f"{what} must be a list.")
    require(1 <= len(value) <= most, f"{what} must be from 1 to {most}, not {len(value)}.")
    return list(value)


def finite(value: Any) -> Any:
    """JSON values with null in the place of numbers that JSON has no word for."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _shortened(value: float) -> str:
    """A number as a sentence shows it."""
    return f"{value:g}" if isinstance(value, float) else str(value) if abs(value) < 10**12 else "that"
