"""The state of a joint training on disk: everything that a resumed run needs to end as the undisturbed one does.

Random draws follow from the seed and the step, so that no generator is kept. The best weights are a file of their own,
written only when they change.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dits.common.errors import CheckpointError
from dits.common.files import atomic_path, parse_json, sha256_of_json

_HEADER = "joint-training"
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class JointState:
    """A run's progress, its model and optimiser, and the folder they are kept in.

    Attributes:
        step: steps done.
        best: the record of the best evaluation; empty before the first.
        history: the record of every evaluation.
        losses: of the steps since the last evaluation.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path, key: dict[str, Any]) -> None:
        """`key` is what a resumed run must share with the one that it continues."""
        self.model, self.optimizer, self.folder = model, optimizer, folder
        self.step = 0
        self.best: dict[str, Any] = {}
        self.history: list[dict[str, Any]] = []
        self.losses: list[float] = []
        self._key = sha256_of_json(key)

    def save(self) -> None:
        """Writes the state, whole or not at all.

        Raises:
            StorageError: the folder cannot be written, or the disk is full.
        """
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for name, parameter in self._trained():
            for key in _MOMENTS if parameter in self.optimizer.state else ():
                tensors[f"{key}.{name}"] = self.optimizer.state[parameter][key]
        header = {name: getattr(self, name) for name in ("step", "best", "history", "losses")}
        self._write(self.folder / "state.safetensors", tensors, header)

    def save_best(self) -> None:
        """Writes the model's weights as the best so far. The state must follow, for only it knows their record.

        A kill between the two leaves an older state, from which the run comes to these same weights again.
        """
        self._write(self.folder / "best.safetensors", dict(self.model.state_dict()), {})

    def resume(self) -> bool:
        """Goes on from the folder's state; whether there is one.

        Raises:
            CheckpointError: it is damaged, or of a run with another configuration, encoder or data.
        """
        if not (self.folder / "state.safetensors").is_file():
            return False
        header, tensors = self._read(self.folder / "state.safetensors")
        with _damage(self.folder / "state.safetensors"):
            self.model.load_state_dict(_part(tensors, "model."))
            for name, parameter in self._trained():
                if header["step"]:
                    self.optimizer.state[parameter] = {
                        "step": tensors[f"step.{name}"],
                        # In the parameter's own memory layout, as the optimiser makes them.
                        **{key: torch.empty_like(parameter).copy_(tensors[f"{key}.{name}"]) for key in _MOMENTS[1:]},
                    }
            self.step, self.losses = int(header["step"]), list(header["losses"])
            self.best, self.history = dict(header["best"]), list(header["history"])
        return True

    def load_best(self) -> None:
        """Gives the model the best weights.

        Raises:
            CheckpointError: they are missing or damaged.
        """
        path = self.folder / "best.safetensors"
        _, tensors = self._read(path)
        with _damage(path):
            self.model.load_state_dict(tensors)

    def _trained(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, parameter) for name, parameter in self.model.named_parameters() if parameter.requires_grad]

    def _write(self, path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
        # Cloned one by one: tied weights share memory, which safetensors refuses.
        contiguous = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
        with atomic_path(path) as temporary:
            save_file(contiguous, temporary, metadata={_HEADER: json.dumps({"key": self._key, **header})})

    def _read(self, path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
        with _damage(path), safe_open(path, framework="pt") as file:
            header = parse_json((file.metadata() or {})[_HEADER])
            if header["key"] != self._key:
                raise CheckpointError(
                    f"{self.folder} holds a run with another configuration, encoder or data: choose another folder."
                )
            return header, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Turns what damaged files cause into one sentence."""
    try:
        yield
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"The training state in {path} is damaged: remove its folder to start anew.") from error


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
