"""The state of an encoder's training: optimiser, moving average, the best weights so far; written whole, resumable."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dits.common.errors import CheckpointError
from dits.common.files import atomic_path, parse_json, sha256_of_json

_HEADER = "state"
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class EncoderState:
    """Everything that changes during a run, of the parameters that are tuned."""

    def __init__(
        self,
        model: nn.Module,
        groups: list[tuple[dict[str, nn.Parameter], float]],
        averaging: float,
        key: dict[str, Any],
    ) -> None:
        """`groups` are parameters by name, each with its learning rate; `key` is what a resumed run must share."""
        self.model = model
        self.named = {name: parameter for group, _ in groups for name, parameter in group.items()}
        self.optimizer = torch.optim.AdamW(
            [{"params": list(group.values()), "lr": rate, "base_lr": rate} for group, rate in groups],
            weight_decay=0.01,
        )
        self.averaging = averaging
        self.step = 0
        self.best: dict[str, Any] = {}
        self.history: list[dict[str, Any]] = []
        self._key = sha256_of_json(key)
        self._average = self._weights()
        self._best = self._weights()

    def update(self, factor: float) -> None:
        """One optimiser step at `factor` times the learning rates, and its share in the moving average."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        nn.utils.clip_grad_norm_(list(self.named.values()), 1.0)
        self.optimizer.step()
        self.step += 1
        decay = min(self.averaging, self.step / (self.step + 10))  # the first weights are soon forgotten
        with torch.no_grad():
            for name, parameter in self.named.items():
                self._average[name].lerp_(parameter, 1 - decay)

    def record(self, record: dict[str, Any], key: Callable[[dict[str, Any]], tuple[float, ...]]) -> None:
        """Takes a validation of the averaged weights into the history, and keeps them if they are the best so far."""
        self.history.append(record)
        if not self.best or key(record) > key(self.best):
            self.best = record
            self._best = {name: value.clone() for name, value in self._average.items()}

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within the block the model has the averaged weights."""
        own = self._weights()
        self._load(self._average)
        try:
            yield
        finally:
            self._load(own)

    def load_best(self) -> None:
        """Gives the model the best validated weights."""
        self._load(self._best)

    def save(self, path: Path) -> None:
        """Writes the state, whole or not at all.

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
        with atomic_path(path) as temporary:
            whole = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
            save_file(whole, temporary, metadata={_HEADER: json.dumps(header)})

    def resume(self, path: Path) -> bool:
        """Goes on from the state in `path`; False where there is none.

        Raises:
            CheckpointError: the state is damaged, or of a run with another configuration or other pairs.
        """
        if not path.is_file():
            return False
        try:
            with safe_open(path, framework="pt") as file:
                header = parse_json((file.metadata() or {})[_HEADER])
                if header["key"] != self._key:
                    raise CheckpointError(
                        f"{path.parent} holds a run with another configuration or other pairs: choose another folder."
                    )
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            self._load(_part(tensors, "weights."))
            self._average = self._placed(_part(tensors, "average."))
            self._best = self._placed(_part(tensors, "best."))
            moments = {moment: _part(tensors, f"{moment}.") for moment in _MOMENTS}
            for name, parameter in self.named.items():
                state = {moment: moments[moment][name].to(parameter.device) for moment in _MOMENTS[1:]}
                self.optimizer.state[parameter] = {"step": moments["step"][name], **state}
            self.step, self.best, self.history = header["step"], header["best"], header["history"]
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise CheckpointError(f"The training state in {path} is damaged: remove it to start anew.") from error
        return True

    def _weights(self) -> dict[str, Tensor]:
        return {name: parameter.detach().clone() for name, parameter in self.named.items()}

    def _load(self, weights: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.named.items():
                parameter.copy_(weights[name])

    def _placed(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: weights[name].to(parameter.device) for name, parameter in self.named.items()}


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
