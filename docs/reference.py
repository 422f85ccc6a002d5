"""Writes the reference of the library from its docstrings: `make docs`, or `python docs/reference.py FOLDER`."""

import importlib
import pkgutil
import sys
import warnings
from pathlib import Path
from types import ModuleType

import pdoc

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGES = ("dits", "analysis")


def main(folder: Path) -> int:
    """Writes the pages; returns 1 if docstrings or annotations have errors, after printing them, otherwise 0."""
    for package in map(importlib.import_module, PACKAGES):
        for name in package.__all__:  # lazy imports, which pdoc documents only after their first use
            getattr(package, name)
        _list_modules(package)
    pdoc.render.configure(docformat="google", show_source=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pdoc.pdoc(*PACKAGES, output_directory=folder)
    ours = [str(warning.message) for warning in caught if Path(warning.filename).is_relative_to(_PDOC)]
    print("\n".join([*ours, f"Wrote {folder / 'index.html'}"]))
    return 1 if ours else 0


def _list_modules(package: ModuleType) -> None:
    """Adds a package's modules to its `__all__`, because pdoc writes no pages for modules missing there."""
    modules = list(pkgutil.iter_modules(package.__path__))
    if hasattr(package, "__all__"):
        package.__all__ = [*package.__all__, *(module.name for module in modules)]
    for module in modules:
        if module.ispkg:
            _list_modules(importlib.import_module(f"{package.__name__}.{module.name}"))


_PDOC = Path(pdoc.__file__).parent

if __name__ == "__main__":
    sys.path.insert(0, str(REPOSITORY))
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else REPOSITORY / "runs" / "reference"))
