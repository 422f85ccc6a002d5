"""Files with the state of a training run: tensors, and a JSON header with the key of the run."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dits.common.errors import CheckpointError
from dits.common.files import atomic_path, parse_json


def write_state(path: Path, name: str, header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Writes tensors, with `header` as the file's metadata entry `name`, completely or not at all.

    Raises:
        StorageError: the folder cannot be written, or the disk is full.
    """
    # Each tensor is cloned: tied weights share memory, which safetensors refuses.
    copies = {key: value.detach().cpu().clone().contiguous() for key, value in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(copies, temporary, metadata={name: json.dumps(header)})


def read_state(path: Path, name: str, key: Any, difference: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors of a file from `write_state`; call it within `damage_errors`.

    Raises:
        CheckpointError: the header's "key" is not `key`; `difference` says what differs then.
    """
    with safe_open(path, framework="pt") as file:
        header = parse_json((file.metadata() or {})[name])
        if header["key"] != key:
            raise CheckpointError(f"{path.parent} holds a run with {difference}: choose another folder.")
        return header, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping


@contextmanager
def damage_errors(path: Path, to_remove: str) -> Iterator[None]:
    """Raises CheckpointError for the errors that a damaged file causes; it says to remove `to_remove`."""
    try:
        yield
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"The training state in {path} is damaged: remove {to_remove} to start anew.") from error


def with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with a prefix, by the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
