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
    """Writes the pages; returns 1 after printing what is wrong with docstrings and annotations, if anything is."""
    import analysis

    for name in analysis.__all__:  # imported when first used, and documented only once they are
        getattr(analysis, name)
    for package in PACKAGES:
        _list_modules(importlib.import_module(package))
    pdoc.render.configure(docformat="google", show_source=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pdoc.pdoc(*PACKAGES, output_directory=folder)
    ours = [str(warning.message) for warning in caught if Path(warning.filename).is_relative_to(_PDOC)]
    print("\n".join([*ours, f"Wrote {folder / 'index.html'}"]))
    return 1 if ours else 0


def _list_modules(package: ModuleType) -> None:
    """pdoc writes no page of a module that the `__all__` of its package leaves out: each is put in."""
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
