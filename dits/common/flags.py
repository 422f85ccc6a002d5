"""Command-line flags from configuration dataclasses: one flag per field, with the field's own documentation."""

import argparse
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from dits.common.errors import InputError

Config = TypeVar("Config")


def add_config_flags(parser: argparse.ArgumentParser, config: type, skip: tuple[str, ...] = ()) -> None:
    """Adds a flag for every field of a dataclass: --learning-rate for learning_rate.

    The help is what the class's docstring says of the field. Flags that two configurations share are added once.
    """
    group = parser.add_argument_group(config.__name__)
    helps = field_docs(config)
    taken = {option for action in parser._actions for option in action.option_strings}
    for field in fields(config):
        flag = "--" + field.name.replace("_", "-")
        if field.name in skip or flag in taken:
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
    """The configuration that the flags describe: `fixed` fields first, then flags, `defaults`, the class's own."""
    given = {f.name: getattr(args, f.name, None) for f in fields(config)}  # type: ignore[arg-type]
    return config(**{**(defaults or {}), **{name: v for name, v in given.items() if v is not None}, **fixed})


def whole_numbers(text: str, name: str) -> list[int]:
    """The different whole numbers of a comma-separated list.

    Raises:
        InputError: one is no whole number, one stands twice, or there is none.
    """
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"The {name} are whole numbers separated by commas, not '{text}'.") from error
    if len(set(numbers)) < len(numbers):
        raise InputError(f"Name each of the {name} once, not '{text}'.")
    return numbers


def field_docs(config: type) -> dict[str, str]:
    """What the "Attributes:" section of a class's docstring, or of a base class's, says of each field."""
    docs: dict[str, str] = {}
    for base in reversed(config.__mro__):
        section = (base.__doc__ or "").partition("Attributes:")[2]
        entries = re.findall(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", section, re.MULTILINE)
        docs |= {name: " ".join(text.split()) for name, text in entries}
    return docs
