"""Validation of API requests. Clients can send values of any type, whatever the annotations say."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

from dits.common.errors import require

T = TypeVar("T")


def text(value: Any, name: str) -> str:
    """Return a string; raise InputError for other values."""
    require(isinstance(value, str), f"{name} must be a text.")
    return str(value)


def flag(value: Any, name: str) -> bool:
    """Return a boolean; raise InputError for other values."""
    require(isinstance(value, bool), f"{name} must be true or false.")
    return bool(value)


def integer(value: Any, name: str, minimum: int, maximum: int) -> int:
    """Return an integer within bounds; 5.0 counts as one. Raise InputError for other values."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    require(is_number and (isinstance(value, int) or value.is_integer()), f"{name} must be a whole number.")
    require(minimum <= value <= maximum, f"{name} must be from {minimum} to {maximum}, not {_shortened(value)}.")
    return int(value)


def number(value: Any, name: str, minimum: float, maximum: float) -> float:
    """Return a number within bounds as a float; raise InputError for other values."""
    require(isinstance(value, int | float) and not isinstance(value, bool), f"{name} must be a number.")
    bounds = f"{minimum:g} to {maximum:g}"
    require(minimum <= value <= maximum, f"{name} must be a number from {bounds}, not {_shortened(value)}.")
    return float(value)


def optional(check: Callable[..., T], value: Any, *arguments: Any) -> T | None:
    """Return None for None, otherwise the result of `check`."""
    return None if value is None else check(value, *arguments)


def items(value: Any, name: str, maximum: int) -> list[Any]:
    """Return a list of 1 to `maximum` items; raise InputError for other values."""
    require(isinstance(value, list), f"{name} must be a list.")
    require(1 <= len(value) <= maximum, f"{name} must be from 1 to {maximum}, not {len(value)}.")
    return list(value)


def finite(value: Any) -> Any:
    """Replace infinite numbers and NaN, which JSON does not have, by None."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _shortened(value: float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value) if abs(value) < 10**12 else "that"
