"""Lists the licences of all packages in requirements.lock and of the assets: `make licences`.

The licence of a package comes from its metadata if that is exact, otherwise from a review (licences.toml).
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageMetadata, PackageNotFoundError, metadata
from pathlib import Path
from typing import Any

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from tools.requirements import ROOT, LockedPackage, read_lock

LIST = ROOT / "LICENSES.md"
REVIEW = Path(__file__).with_suffix(".toml")

CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
"""Classifiers that name one licence exactly. "BSD License" could be one of several."""


def main() -> None:
    """Writes LICENSES.md; exits with an error if a licence is not reviewed."""
    review = read_review()
    lock = read_lock()
    licences = {package.name: licence_of(package, review["read"]) for package in lock}
    unknown = {name: licence for name, licence in licences.items() if not is_accepted(licence, review["accepted"])}
    if unknown:
        raise SystemExit(f"Review these licences, and enter them in {REVIEW.relative_to(ROOT)}: {unknown}")
    LIST.write_text(licences_page(lock, licences, review), encoding="utf-8")


def read_review() -> dict[str, dict[str, str]]:
    """The reviewed licences of packages and the accepted licences (licences.toml)."""
    return tomllib.loads(REVIEW.read_text(encoding="utf-8"))


def licence_of(package: LockedPackage, read: Mapping[str, str]) -> str | None:
    """A package's licence as an SPDX expression, from the review or its metadata; None if neither names one."""
    if package.name in read:
        return read[package.name]
    try:
        return metadata_licence(metadata(package.name))
    except PackageNotFoundError:
        return None


def metadata_licence(package: PackageMetadata) -> str | None:
    """The licence in a package's metadata as an SPDX expression; None if it is not exact."""
    fields: Any = package
    for name in ("License-Expression", "License"):
        try:
            return str(canonicalize_license_expression(fields.get(name) or ""))
        except InvalidLicenseExpression:
            continue
    names = [line.rpartition(" :: ")[2] for line in fields.get_all("Classifier", []) if line.startswith("License ::")]
    return CLASSIFIERS.get(names[0]) if len(names) == 1 else None


def is_accepted(licence: str | None, accepted: Mapping[str, str]) -> bool:
    """Whether every licence of an expression is accepted."""
    return all(part in accepted for part in single_licences(licence))


def single_licences(licence: str | None) -> list[str]:
    """The single licences of an SPDX expression."""
    return re.split(r" AND | OR ", re.sub(r"[()]", "", licence or ""))


def licences_page(
    lock: Sequence[LockedPackage], licences: Mapping[str, str | None], review: Mapping[str, Mapping[str, str]]
) -> str:
    """The text of LICENSES.md."""
    rows = [f"| {p.name} | {p.version} | {licences[p.name]} | {p.marker or ''} |\n" for p in lock]
    used = {part for licence in licences.values() for part in single_licences(licence)}
    names = {package.name for package in lock}
    return _TEXT.format(
        rows="".join(rows),
        terms="".join(f"| {name} | {terms} |\n" for name, terms in review["accepted"].items() if name in used),
        carried="".join(f"| {name} | {parts} |\n" for name, parts in review["carried"].items() if name in names),
        assets="".join(f"| [{path}]({path}) | {title} |\n" for path, title in _notices()),
    )


def _notices() -> list[tuple[str, str]]:
    paths = sorted((ROOT / "assets").glob("*/NOTICE.md"))
    titles = [path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ") for path in paths]
    return [(path.relative_to(ROOT).as_posix(), title) for path, title in zip(paths, titles, strict=True)]


_TEXT = """# Licences

DITS is MIT licensed ([LICENSE](LICENSE)). This page lists the packages that it needs and the assets that it ships. It
is written by `make licences`, from the metadata of the packages in [requirements.lock](requirements.lock) and, if the
metadata is not exact, from a review of the packages (`tools/licences.toml`).

## Packages

The packages are not in this repository: they are installed from a package index under their own licences. All of these
licences allow MIT-licensed software to require the package. The next two tables list what applies if the packages are
distributed together, for example in a container image.

| package | release | licence | only if |
|---|---|---|---|
{rows}
The terms of the licences:

| licence | terms |
|---|---|
{terms}
Other software in the wheels, under other terms:

| package | contains |
|---|---|
{carried}
The NVIDIA packages are required by PyTorch's build for Linux. PyTorch's CPU build, from its own index, does not need
them, and DITS does not need a GPU. Without decord, videos are decoded with PyAV; without PyAV and decord, no video can
be decoded, as both contain FFmpeg.

## Assets

The notice of each folder names the origin and the licence of its files.

| notice | subject |
|---|---|
{assets}
The pictures in `assets/` and in `reports/` show the app and its figures, with stills of the demo corpus (MIT, see its
notice). `reports/gap/dits/report.html` contains plotly.js (MIT, with its notice).
"""


if __name__ == "__main__":
    main()
