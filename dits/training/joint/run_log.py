"""The records of a training: a file of JSON lines beside its state, and optionally TensorBoard."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dits.common.errors import InputError
from dits.common.files import atomic_path, make_folder, storage_errors


class RunLog:
    """Writes records, each with a step. A resumed run drops the records of steps that it repeats."""

    def __init__(self, path: Path, step: int, log_dir: Path | None = None) -> None:
        """Continues the file at `path` after `step`; `log_dir` is TensorBoard's folder.

        Raises:
            InputError: `log_dir` is given, but TensorBoard is not installed.
            StorageError: a folder cannot be written.
        """
        self._writer = _tensorboard(log_dir, step) if log_dir else None
        make_folder(path.parent)
        kept = [record for record in _records(path) if record["step"] <= step]
        with atomic_path(path) as temporary:
            temporary.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")
        self._path = path

    def write(self, record: dict[str, Any]) -> None:
        """Appends a record; TensorBoard gets its numbers by name, nested ones as outer/inner."""
        with storage_errors(self._path.parent), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        if self._writer is not None:
            for name, value in _scalars(record):
                self._writer.add_scalar(name, value, record["step"])
            self._writer.flush()

    def close(self) -> None:
        """Closes TensorBoard's file."""
        if self._writer is not None:
            self._writer.close()


def check_tensorboard() -> None:
    """Checks that TensorBoard is installed.

    Raises:
        InputError: it is not.
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
    """The file's records up to the first unreadable one: a killed run may have left its last line incomplete."""
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
