"""Command-line flags from configuration dataclasses: one flag per field, documented by the class's docstring."""

import argparse
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from dits.common.errors import InputError

Config = TypeVar("Config")


def add_config_flags(parser: argparse.ArgumentParser, config: type, skip: tuple[str, ...] = ()) -> None:
    """Add a flag for every field of a dataclass: --learning-rate for learning_rate.

    The help text comes from the class's docstring. A flag that two configurations share is added once.
    """
    group = parser.add_argument_group(config.__name__)
    helps = field_docs(config)
    existing = {option for action in parser._actions for option in action.option_strings}
    for field in fields(config):
        flag = "--" + field.name.replace("_", "-")
        if field.name in skip or flag in existing:
            continue
        options: dict[str, Any] = {"default": None, "help": helps.get(field.name, "").replace("%", "%%")}
        if field.type is bool:
            options["action"] = argparse.BooleanOptionalAction
        else:
            options |= {"type": field.type, "metavar": getattr(field.type, "__name__", "VALUE").upper()}
        group.add_argument(flag, **options)


def config_from(
    args: argparse.Namespace, config: type[Config], defaults: Mapping[str, Any] | None = None, **fixed: Any
) -> Config:
    """Build the configuration. Precedence: `fixed`, the flags, `defaults`, the defaults of the class."""
    given = {f.name: getattr(args, f.name, None) for f in fields(config)}  # type: ignore[arg-type]
    return config(**{**(defaults or {}), **{name: v for name, v in given.items() if v is not None}, **fixed})


def whole_numbers(text: str, name: str) -> list[int]:
    """Parse a comma-separated list of distinct whole numbers.

    Raises:
        InputError: the list is empty, or contains a duplicate or something that is not a whole number.
    """
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"The {name} must be whole numbers separated by commas, not '{text}'.") from error
    if len(set(numbers)) < len(numbers):
        raise InputError(f"The {name} '{text}' contain a duplicate: give each number once.")
    return numbers


def field_docs(config: type) -> dict[str, str]:
    """The documentation of each field, from the "Attributes:" sections of the class and its base classes."""
    docs: dict[str, str] = {}
    for base in reversed(config.__mro__):
        section = (base.__doc__ or "").partition("Attributes:")[2]
        entries = re.findall(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", section, re.MULTILINE)
        docs |= {name: " ".join(text.split()) for name, text in entries}
    return docs
