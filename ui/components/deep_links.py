"""Deep links: the URL parameters that reproduce the state of the page.

URLs are untrusted. Every parameter is validated; an invalid one is ignored with a message that has its name, but not
its value.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any
from urllib.parse import urlencode

MAX_QUERY_LENGTH = 1_000
"""The maximum number of characters of a query in a link."""

TABS = ("search", "own", "trajectory", "gap", "about")


@dataclass(frozen=True)
class Parameter:
    """A URL parameter.

    Attributes:
        read: parses the text of the parameter; returns None for invalid text.
        allowed: describes the valid values.
        default: the value if the parameter is missing.
    """

    read: Callable[[str], Any]
    allowed: str
    default: Any = None


@dataclass(frozen=True)
class Link:
    """A parsed link: a tab, the values of its parameters, and messages on parameters that were ignored."""

    tab: str = "search"
    values: Mapping[str, Any] | None = None
    problems: tuple[str, ...] = ()

    def get(self, name: str, otherwise: Any) -> Any:
        """Return the value of a parameter, or `otherwise` if the link does not have it."""
        return (self.values or {}).get(name, otherwise)


def read_link(query_params: Mapping[str, str]) -> Link:
    """Parse URL parameters; parameters that are not the page's own are ignored silently."""
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


def write_link(tab: str, **values: Any) -> str:
    """Return the URL parameters for the values of a tab, without `?`.

    Default values are left out, and so are values that a link cannot have, such as a query that is too long.
    """
    known = PARAMETERS[tab]
    changed = {name: value for name, value in values.items() if value not in (None, known[name].default)}
    texts = {name: _text(value) for name, value in changed.items()}
    return urlencode({name: text for name, text in texts.items() if known[name].read(text) == changed[name]})


def link_html(tab: str, **values: Any) -> str:
    """Return a hidden element from which page.js reads the URL parameters of a tab."""
    return f'<i hidden data-link-of="{tab}" data-link="{escape(write_link(tab, **values))}"></i>'


def parameter_names() -> list[str]:
    """Return the names of all URL parameters of the page."""
    return sorted({"tab", *(name for parameters in PARAMETERS.values() for name in parameters)})


def _problem(name: str, allowed: str) -> str:
    return f"The link's '{name}' was ignored: it must be {allowed}."


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(int(value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _one_of(*choices: str, default: str | None = None) -> Parameter:
    return Parameter(lambda text: text if text in choices else None, f"one of {', '.join(choices)}", default)


def _name(default: str | None = None) -> Parameter:
    """The name of a method or a split; whether it exists is known only when the corpus is loaded."""
    read = lambda text: text if len(text) <= 60 and text.isprintable() and text else None  # noqa: E731
    return Parameter(read, "a name of at most 60 characters", default)


def _whole(low: int, high: int, default: int) -> Parameter:
    def read(text: str) -> int | None:
        is_whole = len(text) <= 12 and text.isascii() and text.isdigit()
        return int(text) if is_whole and low <= int(text) <= high else None

    return Parameter(read, f"a whole number from {low:,} to {high:,}", default)


def _number(low: float, high: float, default: float) -> Parameter:
    def read(text: str) -> float | None:
        try:
            value = float(text) if len(text) <= 12 else math.nan
        except ValueError:
            return None
        return value if low <= value <= high else None

    return Parameter(read, f"a number from {low:g} to {high:g}", default)


_QUERY = Parameter(
    lambda text: text if text.strip() and len(text) <= MAX_QUERY_LENGTH else None,
    f"a sentence of at most {MAX_QUERY_LENGTH:,} characters",
)
_FLAG = Parameter(lambda text: {"0": False, "1": True}.get(text), "0 or 1", False)
_MAP = _one_of("Linear", "UMAP", "PCA", default="Linear")

PARAMETERS: dict[str, dict[str, Parameter]] = {
    "search": {
        "q": _QUERY,
        "method": _one_of("dits", "xpool", "mean", default="dits"),
        "top": _whole(1, 24, 8),
        "in": _one_of("own"),
    },
    "own": {},
    "trajectory": {
        "q": _QUERY,
        "method": _name("dits"),
        "steps": _whole(0, 40, 10),
        "noise": _number(0, 1, 0.0),
        "seed": _whole(0, 2**32 - 1, 0),
        "beside": _FLAG,
        "map": _MAP,
        "three": _FLAG,
        "in": _one_of("own"),
    },
    "gap": {
        "split": _name(),
        "method": _name(),
        "beside": _name(),
        "side": _one_of("mean", "pooled", default="mean"),
        "map": _MAP,
        "three": _FLAG,
    },
    "about": {},
}
"""The parameters of each tab, by name."""
