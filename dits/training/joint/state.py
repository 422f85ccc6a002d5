"""The state of a joint training on disk: everything that a resumed run needs to end like an uninterrupted one.

Random draws follow from the seed and the step, so the state of no generator is saved. The best weights are in a
separate file, which is written only when they change.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dits.common.files import sha256_of_json
from dits.training.optimisation import trainable_parameters
from dits.training.state_file import damage_errors, read_state, with_prefix, write_state

_HEADER = "joint-training"
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class JointState:
    """A run's progress, its model and optimiser, and the folder that they are saved in.

    Attributes:
        step: number of finished steps.
        best: the record of the best evaluation; empty before the first one.
        history: the records of all evaluations.
        losses: of the steps since the last evaluation.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path, key: dict[str, Any]) -> None:
        """`key` must be equal in a resumed run and the run that it continues."""
        self.model, self.optimizer, self.folder = model, optimizer, folder
        self.step = 0
        self.best: dict[str, Any] = {}
        self.history: list[dict[str, Any]] = []
        self.losses: list[float] = []
        self._key = sha256_of_json(key)

    def save(self) -> None:
        """Writes the state, completely or not at all.

        Raises:
            StorageError: the folder cannot be written, or the disk is full.
        """
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for name, parameter in trainable_parameters(self.model):
            for key in _MOMENTS if parameter in self.optimizer.state else ():
                tensors[f"{key}.{name}"] = self.optimizer.state[parameter][key]
        header = {name: getattr(self, name) for name in ("step", "best", "history", "losses")}
        write_state(self.folder / "state.safetensors", _HEADER, {"key": self._key, **header}, tensors)

    def save_best(self) -> None:
        """Writes the model's weights as the best so far. Save the state next, as it contains their record.

        A kill between the two leaves an older state, from which a resumed run reaches the same weights again.
        """
        write_state(self.folder / "best.safetensors", _HEADER, {"key": self._key}, dict(self.model.state_dict()))

    def resume(self) -> bool:
        """Continues from the state in the folder; returns whether there is one.

        Raises:
            CheckpointError: it is damaged, or belongs to a run with another configuration, encoder or data.
        """
        path = self.folder / "state.safetensors"
        if not path.is_file():
            return False
        with damage_errors(path, "its folder"):
            header, tensors = self._read(path)
            self.model.load_state_dict(with_prefix(tensors, "model."))
            for name, parameter in trainable_parameters(self.model):
                if header["step"]:
                    self.optimizer.state[parameter] = {
                        "step": tensors[f"step.{name}"],
                        # In the parameter's memory layout, as the optimiser creates them.
                        **{key: torch.empty_like(parameter).copy_(tensors[f"{key}.{name}"]) for key in _MOMENTS[1:]},
                    }
            self.step, self.losses = int(header["step"]), list(header["losses"])
            self.best, self.history = dict(header["best"]), list(header["history"])
        return True

    def load_best(self) -> None:
        """Loads the best weights into the model.

        Raises:
            CheckpointError: they are missing or damaged.
        """
        path = self.folder / "best.safetensors"
        with damage_errors(path, "its folder"):
            self.model.load_state_dict(self._read(path)[1])

    def _read(self, path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return read_state(path, _HEADER, self._key, "another configuration, encoder or data")
