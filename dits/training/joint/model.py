"""An encoder and a retrieval model as one module to train, and the gradients of a batch, whole or in chunks.

In chunks (GradCache, Gao et al. 2021) the memory is that of one chunk, and the gradients are those of the whole batch
with all its negatives: every chunk is embedded without a graph, the loss of all embeddings gives the gradient at each
embedding, and every chunk is embedded again, with the same random draws, to carry its gradient on to the encoder.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dits.common.errors import EncoderError
from dits.encoders.openclip import OpenClipEncoder
from dits.models.retrieval import RetrievalModel
from dits.training.joint.distributed import World, gather, gather_with_gradients


@dataclass(frozen=True)
class Batch:
    """One process's share b of a batch of B pairs: b = B without other processes.

    Attributes:
        tokens: (b, L) of the texts.
        pixels: (b, F, 3, H, W) of their videos, uint8.
        ignored: (B, B) marks the pairs of a text and a video that are no negatives; None where there are none.
    """

    tokens: Tensor
    pixels: Tensor
    ignored: Tensor | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def chunks(self, size: int) -> list["Batch"]:
        """The share in parts of `size` pairs or fewer."""
        parts = zip(self.tokens.split(size), self.pixels.split(size), strict=True)
        return [Batch(tokens, pixels, self.ignored) for tokens, pixels in parts]


class JointModel(nn.Module):
    """An OpenCLIP model with a retrieval model on its embeddings.

    Batch norms keep their pretrained statistics: those of a few videos' frames would be poor, and would depend on how
    a batch is shared among processes and chunks.
    """

    def __init__(self, encoder: OpenClipEncoder, head: RetrievalModel, world: World, precision: str = "fp32") -> None:
        """`precision` is fp32, or bf16 for the encoder under autocast; the loss is always computed in fp32."""
        super().__init__()
        self.towers: Any = encoder.module
        self.head = head
        self.world = world
        self.precision = precision
        self._transform = encoder.transform
        for name in ("logit_scale", "logit_bias"):  # the retrieval model has the temperature
            parameter = getattr(self.towers, name, None)
            if parameter is not None:
                parameter.requires_grad_(False)

    def checkpoint_activations(self) -> None:
        """Keeps no activations inside the encoder's blocks for the backward pass, which computes them again.

        Raises:
            EncoderError: the encoder's towers cannot do that.
        """
        try:
            self.towers.set_grad_checkpointing(True)
        except Exception as error:  # towers come from several libraries, each with its own refusal
            raise EncoderError("This encoder cannot recompute its activations: leave the option out.") from error

    def train(self, mode: bool = True) -> "JointModel":
        """As every module does it, but the statistics of batch normalisation stay those of pretraining."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def embed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Text embeddings (b, d) and frame embeddings (b, F, d) of a share of pairs, float32."""
        with self._autocast(batch.tokens.device):
            images = self._transform.normalise(batch.pixels).flatten(0, 1)
            frames = self.towers.encode_image(images.contiguous(memory_format=torch.channels_last))
            texts = self.towers.encode_text(batch.tokens)
        return texts.float(), frames.float().unflatten(0, batch.pixels.shape[:2])

    def forward(self, batch: Batch, seed: int, gradients: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """The loss (scalar) of the whole batch, this share being one of its parts.

        With `gradients` at the share's embeddings, (b, d) and (b, F, d), instead a scalar whose gradient at the
        encoder is what they cause there: the second pass of GradCache.
        """
        torch.manual_seed(seed + 1 + self.world.rank)
        texts, frames = self.embed(batch)
        if gradients is not None:
            carried = (texts * gradients[0]).sum() + (frames * gradients[1]).sum()
            return carried + self._nothing()
        texts, frames = (gather_with_gradients(x, self.world) for x in (texts, frames))
        return self.loss(texts, frames, batch.ignored, seed) + self._nothing()

    def loss(self, texts: Tensor, frames: Tensor, ignored: Tensor | None, seed: int) -> Tensor:
        """The loss (scalar) of all embeddings of a batch, (B, d) and (B, F, d); the seed decides dropout and noise."""
        torch.manual_seed(seed)
        return self.head.loss(texts, frames, ignored)

    def _nothing(self) -> Tensor | float:
        """Zero, from every parameter: DistributedDataParallel waits for a gradient of each in every pass."""
        if self.world.size == 1:
            return 0.0
        return 0.0 * torch.stack([p.flatten()[0].float() for p in self.parameters() if p.requires_grad]).sum()

    def _autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        return nullcontext() if self.precision == "fp32" else torch.autocast(device.type, torch.bfloat16)


class GradientStep:
    """Computes a batch's loss and gradients, in one process or in several that each hold a share of the batch."""

    def __init__(self, model: JointModel, micro_batch: int = 0) -> None:
        """`micro_batch` is how many pairs a process embeds at once, which decides the memory; 0 is its whole share."""
        self.model = model
        self.micro_batch = micro_batch
        self._module: nn.Module = model
        if model.world.size > 1:
            self._module = DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)

    def backward(self, batch: Batch, seed: int) -> float:
        """The loss of the whole batch, whose gradients are added to the parameters'. Random draws follow the seed."""
        if self.micro_batch and self.micro_batch < len(batch):
            loss = self._backward_in_chunks(batch.chunks(self.micro_batch), seed)
        else:
            loss = self._module(batch, seed)
            loss.backward()
        for parameter in self.model.parameters():  # of what the loss does not reach, as several processes have it
            if parameter.requires_grad and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return loss.item()

    def _backward_in_chunks(self, chunks: Sequence[Batch], seed: int) -> Tensor:
        world = self.model.world
        seeds = [seed + (1 + n) * world.size for n in range(len(chunks))]
        with torch.no_grad():
            embedded = [self._embed(chunk, s) for chunk, s in zip(chunks, seeds, strict=True)]
        own = [torch.cat(parts) for parts in zip(*embedded, strict=True)]
        texts, frames = (gather(x, world).requires_grad_(True) for x in own)
        with self._unsynchronised(True):
            loss = self.model.loss(texts, frames, chunks[0].ignored, seed)
            loss.backward()
        share = world.share(len(texts))
        sizes = [len(chunk) for chunk in chunks]
        gradients = [(x.grad[share] * world.size).split(sizes) for x in (texts, frames) if x.grad is not None]
        for n, chunk in enumerate(chunks):
            with self._unsynchronised(n < len(chunks) - 1):
                self._module(chunk, seeds[n], (gradients[0][n], gradients[1][n])).backward()
        return loss

    def _embed(self, chunk: Batch, seed: int) -> tuple[Tensor, Tensor]:
        torch.manual_seed(seed + 1 + self.model.world.rank)
        return self.model.embed(chunk)

    def _unsynchronised(self, yes: bool) -> AbstractContextManager[Any]:
        """Gradients are exchanged once a step, after the last chunk."""
        return self._module.no_sync() if yes and isinstance(self._module, DistributedDataParallel) else nullcontext()
