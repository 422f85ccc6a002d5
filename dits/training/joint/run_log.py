"""The records of a training: lines of JSON beside its state, and TensorBoard where it is asked for."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dits.common.errors import InputError
from dits.common.files import atomic_path, make_folder, storage_errors


class RunLog:
    """Writes records, each with a step; after a resumption those of steps that will be repeated are gone."""

    def __init__(self, path: Path, step: int, log_dir: Path | None = None) -> None:
        """Goes on with the file at `path` after `step`; `log_dir` is TensorBoard's folder.

        Raises:
            InputError: TensorBoard is asked for and not installed.
            StorageError: a folder cannot be written.
        """
        self._writer = _tensorboard(log_dir, step) if log_dir else None
        make_folder(path.parent)
        kept = [record for record in _records(path) if record["step"] <= step]
        with atomic_path(path) as temporary:
            temporary.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")
        self._path = path

    def write(self, record: dict[str, Any]) -> None:
        """Adds a record; its numbers go to TensorBoard under their names, nested ones as outer/inner."""
        with storage_errors(self._path.parent), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        if self._writer is not None:
            for name, value in _scalars(record):
                self._writer.add_scalar(name, value, record["step"])
            self._writer.flush()

    def close(self) -> None:
        """Ends TensorBoard's file."""
        if self._writer is not None:
            self._writer.close()


def check_tensorboard() -> None:
    """Says before a training that it could not be logged.

    Raises:
        InputError: TensorBoard is not installed.
    """
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise InputError(
            "Logging for TensorBoard needs its package: pip install tensorboard, or leave --log-dir out."
        ) from error


def _tensorboard(folder: Path, step: int) -> Any:
    check_tensorboard()
    from torch.utils.tensorboard import SummaryWriter

    with storage_errors(folder):
        return SummaryWriter(str(folder), purge_step=step + 1)


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """The file's records as far as they can be read: a kill may have cut the last one."""
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            return
        if not isinstance(record, dict) or not isinstance(record.get("step"), int):
            return
        yield record


def _scalars(record: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in record.items():
        if isinstance(value, dict):
            yield from _scalars(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and name != "step":
            yield prefix + name, float(value)
