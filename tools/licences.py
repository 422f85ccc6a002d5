"""Lists the licences of all packages that requirements.lock names, and of the assets: `make licences`.

A package's licence is what its metadata says, where that is exact; else what was read in it (licences.toml).
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageMetadata, PackageNotFoundError, metadata
from pathlib import Path
from typing import Any

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from tools.requirements import ROOT, Locked, read_lock

LIST = ROOT / "LICENSES.md"
REVIEW = Path(__file__).with_suffix(".toml")

CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
"""Those that name one licence exactly. "BSD License" is several."""


def main() -> None:
    """Writes LICENSES.md; refuses licences that nobody has reviewed."""
    review = read_review()
    lock = read_lock()
    licences = {package.name: licence_of(package, review["read"]) for package in lock}
    unknown = {name: licence for name, licence in licences.items() if not is_accepted(licence, review["accepted"])}
    if unknown:
        raise SystemExit(f"Review these, and enter them in {REVIEW.relative_to(ROOT)}: {unknown}")
    LIST.write_text(listing(lock, licences, review), encoding="utf-8")


def read_review() -> dict[str, dict[str, str]]:
    """What people have read and decided."""
    return tomllib.loads(REVIEW.read_text(encoding="utf-8"))


def licence_of(package: Locked, read: Mapping[str, str]) -> str | None:
    """A package's licence as an SPDX expression: as read, or as its metadata says; None where neither does."""
    if package.name in read:
        return read[package.name]
    try:
        return stated(metadata(package.name))
    except PackageNotFoundError:
        return None


def stated(about: PackageMetadata) -> str | None:
    """The SPDX expression that metadata state, exactly."""
    fields: Any = about
    for name in ("License-Expression", "License"):
        try:
            return str(canonicalize_license_expression(fields.get(name) or ""))
        except InvalidLicenseExpression:
            continue
    names = [line.rpartition(" :: ")[2] for line in fields.get_all("Classifier", []) if line.startswith("License ::")]
    return CLASSIFIERS.get(names[0]) if len(names) == 1 else None


def is_accepted(licence: str | None, accepted: Mapping[str, str]) -> bool:
    """Whether every licence of an expression is among the accepted ones."""
    return all(part in accepted for part in parts(licence))


def parts(licence: str | None) -> list[str]:
    """The single licences of an expression."""
    return re.split(r" AND | OR ", re.sub(r"[()]", "", licence or ""))


def listing(lock: Sequence[Locked], licences: Mapping[str, str | None], review: Mapping[str, Mapping[str, str]]) -> str:
    """LICENSES.md."""
    rows = [
        f"| {package.name} | {package.version} | {licences[package.name]} | {package.marker or ''} |\n"
        for package in lock
    ]
    named = {part for licence in licences.values() for part in parts(licence)}
    names = {package.name for package in lock}
    return _TEXT.format(
        rows="".join(rows),
        asks="".join(f"| {name} | {asks} |\n" for name, asks in review["accepted"].items() if name in named),
        carried="".join(f"| {name} | {what} |\n" for name, what in review["carried"].items() if name in names),
        assets="".join(f"| [{path}]({path}) | {title} |\n" for path, title in _notices()),
    )


def _notices() -> list[tuple[str, str]]:
    paths = sorted((ROOT / "assets").glob("*/NOTICE.md"))
    titles = [path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ") for path in paths]
    return [(path.relative_to(ROOT).as_posix(), title) for path, title in zip(paths, titles, strict=True)]


_TEXT = """# Licences

DITS is MIT licensed ([LICENSE](LICENSE)). This page lists what it needs and what it ships; `make licences` writes it
from the metadata of the packages in [requirements.lock](requirements.lock) and from what was read where these are
inexact (`tools/licences.toml`).

## Packages

None of them is in this repository: whoever installs DITS gets them from a package index under their own licences. All
of these licences let MIT-licensed software require the package. Passing them on together, as in a container image, is
another matter: see the two tables after this one.

| package | release | licence | only where |
|---|---|---|---|
{rows}
What the licences ask:

| licence | |
|---|---|
{asks}
What wheels carry besides, under other terms:

| package | carries |
|---|---|
{carried}
The NVIDIA packages come with PyTorch's build for Linux. The CPU build of PyTorch (its own index) does without them, and
DITS needs no GPU. Without decord everything works through PyAV; without either's build of FFmpeg nothing is decoded.

## Assets

Each folder's notice says what its files are made from, and under which licence.

| notice | of |
|---|---|
{assets}
The pictures in `assets/` and in `reports/` show the app and its figures, with stills of the demo corpus (MIT, see its
notice). `reports/gap/dits/report.html` carries plotly.js (MIT, its notice inside).
"""


if __name__ == "__main__":
    main()
