"""The state of an encoder's training: optimiser, moving average and the best weights so far, saved for resuming."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dits.common.files import sha256_of_json
from dits.training.optimisation import set_learning_rates
from dits.training.state_file import damage_errors, read_state, with_prefix, write_state

_HEADER = "state"
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class EncoderState:
    """Everything that changes during a run: the tuned parameters, their optimiser, their average and the history."""

    def __init__(
        self, model: nn.Module, groups: list[tuple[dict[str, nn.Parameter], float]], averaging: float,
        key: dict[str, Any],
    ) -> None:  # fmt: skip
        """`groups` are named parameters with their learning rate; a resumed run must have the same `key`."""
        self.model = model
        self.named = {name: parameter for group, _ in groups for name, parameter in group.items()}
        self.optimizer = torch.optim.AdamW(
            [{"params": list(group.values()), "lr": rate, "base_lr": rate} for group, rate in groups], weight_decay=0.01
        )
        self.averaging = averaging
        self.step = 0
        self.best: dict[str, Any] = {}
        self.history: list[dict[str, Any]] = []
        self._key = sha256_of_json(key)
        self._average = self._weights()
        self._best = self._weights()

    def update(self, factor: float) -> None:
        """Takes one optimiser step at `factor` times the learning rates, and updates the moving average."""
        set_learning_rates(self.optimizer.param_groups, factor)
        nn.utils.clip_grad_norm_(list(self.named.values()), 1.0)
        self.optimizer.step()
        self.step += 1
        decay = min(self.averaging, self.step / (self.step + 10))  # a lower decay at first forgets the initial weights
        with torch.no_grad():
            for name, parameter in self.named.items():
                self._average[name].lerp_(parameter, 1 - decay)

    def record(self, record: dict[str, Any], key: Callable[[dict[str, Any]], tuple[float, ...]]) -> None:
        """Adds a validation of the averaged weights to the history; copies them if its `key` is the highest so far."""
        self.history.append(record)
        if not self.best or key(record) > key(self.best):
            self.best = record
            self._best = {name: value.clone() for name, value in self._average.items()}

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Gives the model the averaged weights within the block."""
        own = self._weights()
        self._load(self._average)
        try:
            yield
        finally:
            self._load(own)

    def load_best(self) -> None:
        """Loads the best validated weights into the model."""
        self._load(self._best)

    def save(self, path: Path) -> None:
        """Writes the state, completely or not at all.

        Raises:
            StorageError: the folder cannot be written, or the disk is full.
        """
        tensors = {f"weights.{name}": value for name, value in self._weights().items()}
        tensors |= {f"average.{name}": value for name, value in self._average.items()}
        tensors |= {f"best.{name}": value for name, value in self._best.items()}
        for name, parameter in self.named.items():
            moments = self.optimizer.state[parameter]
            tensors |= {f"{moment}.{name}": moments[moment] for moment in _MOMENTS}
        header = {"key": self._key, "step": self.step, "best": self.best, "history": self.history}
        write_state(path, _HEADER, header, tensors)

    def resume(self, path: Path) -> bool:
        """Continues from the state in `path`; returns False if there is none.

        Raises:
            CheckpointError: the state is damaged, or belongs to a run with another configuration or other pairs.
        """
        if not path.is_file():
            return False
        with damage_errors(path, "it"):
            header, tensors = read_state(path, _HEADER, self._key, "another configuration or other pairs")
            self._load(with_prefix(tensors, "weights."))
            self._average = self._on_devices(with_prefix(tensors, "average."))
            self._best = self._on_devices(with_prefix(tensors, "best."))
            moments = {moment: with_prefix(tensors, f"{moment}.") for moment in _MOMENTS}
            for name, parameter in self.named.items():
                state = {moment: moments[moment][name].to(parameter.device) for moment in _MOMENTS[1:]}
                self.optimizer.state[parameter] = {"step": moments["step"][name], **state}
            self.step, self.best, self.history = header["step"], header["best"], header["history"]
        return True

    def _weights(self) -> dict[str, Tensor]:
        return {name: parameter.detach().clone() for name, parameter in self.named.items()}

    def _load(self, weights: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.named.items():
                parameter.copy_(weights[name])

    def _on_devices(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: weights[name].to(parameter.device) for name, parameter in self.named.items()}
