"""Links that reproduce what the page shows: an address's parameters, written and read.

Anybody may have written an address. What is read of one is bounded here, and whatever does not fit is left out with a
sentence that names the parameter and repeats nothing else of it.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any
from urllib.parse import urlencode

MAX_QUERY_LENGTH = 1_000
"""Characters of a sentence that a link carries."""

TABS = ("search", "own", "trajectory", "gap", "about")


@dataclass(frozen=True)
class Parameter:
    """One parameter of an address: how it is read, what it may be, and what it is where it is left out.

    `read` gives the value of a text, or None where it is none.
    """

    read: Callable[[str], Any]
    allowed: str
    default: Any = None


@dataclass(frozen=True)
class Link:
    """What an address asks for: a tab, values of its parameters, and sentences on what was left out."""

    tab: str = "search"
    values: Mapping[str, Any] | None = None
    problems: tuple[str, ...] = ()

    def get(self, name: str, otherwise: Any) -> Any:
        """A parameter's value, where the link gives one."""
        return (self.values or {}).get(name, otherwise)


def read_link(query_params: Mapping[str, str]) -> Link:
    """What the parameters of an address ask for; those that are not the page's own are left alone."""
    problems = []
    tab = query_params.get("tab", "search")
    if tab not in TABS:
        problems.append(_problem("tab", f"one of {', '.join(TABS)}"))
        tab = "search"
    values = {}
    for name, parameter in PARAMETERS[tab].items():
        if name in query_params:
            value = parameter.read(query_params[name])
            if value is None:
                problems.append(_problem(name, parameter.allowed))
            else:
                values[name] = value
    return Link(tab, values, tuple(problems))


def written(tab: str, **values: Any) -> str:
    """The parameters that reproduce a tab's values, without `?`; what is as it is by default is left out.

    What a link does not carry is left out as well: a sentence that is too long for one.
    """
    known = PARAMETERS[tab]
    given = {name: value for name, value in values.items() if value not in (None, known[name].default)}
    texts = {name: _text(value) for name, value in given.items()}
    return urlencode({name: text for name, text in texts.items() if known[name].read(text) == given[name]})


def link_html(tab: str, **values: Any) -> str:
    """What page.js reads the address of a tab from."""
    return f'<i hidden data-link-of="{tab}" data-link="{escape(written(tab, **values))}"></i>'


def names() -> list[str]:
    """All parameters of the page."""
    return sorted({"tab", *(name for parameters in PARAMETERS.values() for name in parameters)})


def _problem(name: str, allowed: str) -> str:
    return f"The link's '{name}' was left out: it has to be {allowed}."


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(int(value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _sentence() -> Parameter:
    read = lambda text: text if text.strip() and len(text) <= MAX_QUERY_LENGTH else None  # noqa: E731
    return Parameter(read, f"a sentence of at most {MAX_QUERY_LENGTH:,} characters")


def _one_of(*choices: str, default: str | None = None) -> Parameter:
    return Parameter(lambda text: text if text in choices else None, f"one of {', '.join(choices)}", default)


def _name(default: str | None = None) -> Parameter:
    """Of a method or a split: which there are is known once the corpus is loaded."""
    read = lambda text: text if len(text) <= 60 and text.isprintable() and text else None  # noqa: E731
    return Parameter(read, "a name of at most 60 characters", default)


def _whole(low: int, high: int, default: int) -> Parameter:
    def read(text: str) -> int | None:
        short = len(text) <= 12 and text.isascii() and text.isdigit()
        return int(text) if short and low <= int(text) <= high else None

    return Parameter(read, f"a whole number from {low:,} to {high:,}", default)


def _number(low: float, high: float, default: float) -> Parameter:
    def read(text: str) -> float | None:
        try:
            value = float(text) if len(text) <= 12 else math.nan
        except ValueError:
            return None
        return value if low <= value <= high else None

    return Parameter(read, f"a number from {low:g} to {high:g}", default)


def _flag() -> Parameter:
    return Parameter(lambda text: {"0": False, "1": True}.get(text), "0 or 1", False)


_MAP = _one_of("Linear", "UMAP", "PCA", default="Linear")

PARAMETERS: dict[str, dict[str, Parameter]] = {
    "search": {
        "q": _sentence(),
        "method": _one_of("dits", "xpool", "mean", default="dits"),
        "top": _whole(1, 24, 8),
        "in": _one_of("own"),
    },
    "own": {},
    "trajectory": {
        "q": _sentence(),
        "method": _name("dits"),
        "steps": _whole(0, 40, 10),
        "noise": _number(0, 1, 0.0),
        "seed": _whole(0, 2**32 - 1, 0),
        "beside": _flag(),
        "map": _MAP,
        "three": _flag(),
        "in": _one_of("own"),
    },
    "gap": {
        "split": _name(),
        "method": _name(),
        "beside": _name(),
        "side": _one_of("mean", "pooled", default="mean"),
        "map": _MAP,
        "three": _flag(),
    },
    "about": {},
}
"""The parameters of each tab, by name."""
