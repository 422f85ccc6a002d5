"""An encoder and a retrieval model as one module to train, and the gradients of a batch, whole or in chunks.

With chunks (GradCache, Gao et al. 2021), memory is needed for one chunk only, and the gradients are those of the whole
batch with all its negatives. Every chunk is embedded without a graph, and the loss of all embeddings gives the gradient
of each embedding. Then every chunk is embedded again, with the same random draws, to backpropagate into the encoder.
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
    """The share of one process, b pairs, of a batch of B pairs; b = B if there is only one process.

    Attributes:
        tokens: of the texts (b, L).
        pixels: of their videos (b, F, 3, H, W), uint8.
        ignored: (B, B), True for a text and a video that are not used as a negative pair; None if there are none.
    """

    tokens: Tensor
    pixels: Tensor
    ignored: Tensor | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def chunks(self, size: int) -> list["Batch"]:
        """The share in parts of at most `size` pairs."""
        parts = zip(self.tokens.split(size), self.pixels.split(size), strict=True)
        return [Batch(tokens, pixels, self.ignored) for tokens, pixels in parts]


class JointModel(nn.Module):
    """An OpenCLIP model with a retrieval model on its embeddings.

    Batch normalisation keeps its pretrained statistics. Statistics of the frames of a few videos would be poor, and
    would depend on how a batch is divided among processes and chunks.
    """

    def __init__(
        self,
        encoder: OpenClipEncoder,
        head: RetrievalModel,
        world: World,
        precision: str = "fp32",
        alignment_weight: float = 0.0,
    ) -> None:
        """`precision` is fp32, or bf16 for the encoder under autocast; the loss is always computed in fp32."""
        super().__init__()
        self.towers: Any = encoder.module
        self.head = head
        self.world = world
        self.precision = precision
        self.alignment_weight = alignment_weight
        self._transform = encoder.transform
        for name in ("logit_scale", "logit_bias"):  # the retrieval model has the temperature
            parameter = getattr(self.towers, name, None)
            if parameter is not None:
                parameter.requires_grad_(False)

    def checkpoint_activations(self) -> None:
        """Recomputes the activations inside the encoder's blocks in the backward pass instead of storing them.

        Raises:
            EncoderError: the encoder does not support this.
        """
        try:
            self.towers.set_grad_checkpointing(True)
        except Exception as error:  # towers come from several libraries, each with its own errors
            raise EncoderError("This encoder cannot recompute its activations: leave the option out.") from error

    def train(self, mode: bool = True) -> "JointModel":
        """As `nn.Module.train`, but batch normalisation keeps its pretrained statistics."""
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
        """The loss (scalar) of the whole batch, of which `batch` is this process's share.

        With `gradients` of the share's embeddings, (b, d) and (b, F, d), the result is instead a scalar whose backward
        pass propagates them into the encoder: the second pass of GradCache.
        """
        torch.manual_seed(seed + 1 + self.world.rank)
        texts, frames = self.embed(batch)
        if gradients is not None:
            return (texts * gradients[0]).sum() + (frames * gradients[1]).sum() + self._zero()
        texts, frames = (gather_with_gradients(x, self.world) for x in (texts, frames))
        return self.loss(texts, frames, batch.ignored, seed) + self._zero()

    def loss(self, texts: Tensor, frames: Tensor, ignored: Tensor | None, seed: int) -> Tensor:
        """The loss (scalar) of all embeddings of a batch, (B, d) and (B, F, d), with dropout and noise by the seed."""
        torch.manual_seed(seed)
        return self.head.loss(texts, frames, ignored, alignment_weight=self.alignment_weight)

    def _zero(self) -> Tensor | float:
        """Zero that depends on every parameter: DistributedDataParallel needs a gradient of each in every pass."""
        if self.world.size == 1:
            return 0.0
        return 0.0 * torch.stack([p.flatten()[0].float() for p in self.parameters() if p.requires_grad]).sum()

    def _autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        return nullcontext() if self.precision == "fp32" else torch.autocast(device.type, torch.bfloat16)


class GradientStep:
    """Computes the loss and gradients of a batch, in one process or in several with a share of the batch each."""

    def __init__(self, model: JointModel, micro_batch: int = 0) -> None:
        """`micro_batch` is the number of pairs that a process embeds in one pass; 0 means its whole share."""
        self.model = model
        self.micro_batch = micro_batch
        self._module: nn.Module = model
        if model.world.size > 1:
            self._module = DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)

    def backward(self, batch: Batch, seed: int) -> float:
        """Adds the gradients of the whole batch to the parameters and returns its loss; the seed sets random draws."""
        if self.micro_batch and self.micro_batch < len(batch):
            loss = self._backward_in_chunks(batch.chunks(self.micro_batch), seed)
        else:
            loss = self._module(batch, seed)
            loss.backward()
        for parameter in self.model.parameters():  # zeros for parameters without a gradient, as with several processes
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
        with self._no_sync(True):
            loss = self.model.loss(texts, frames, chunks[0].ignored, seed)
            loss.backward()
        share = world.share(len(texts))
        sizes = [len(chunk) for chunk in chunks]
        gradients = [(x.grad[share] * world.size).split(sizes) for x in (texts, frames) if x.grad is not None]
        for n, chunk in enumerate(chunks):
            with self._no_sync(n < len(chunks) - 1):
                self._module(chunk, seeds[n], (gradients[0][n], gradients[1][n])).backward()
        return loss

    def _embed(self, chunk: Batch, seed: int) -> tuple[Tensor, Tensor]:
        torch.manual_seed(seed + 1 + self.model.world.rank)
        return self.model.embed(chunk)

    def _no_sync(self, active: bool) -> AbstractContextManager[Any]:
        """If active, processes do not exchange gradients: they do so once per step, in the last chunk."""
        return self._module.no_sync() if active and isinstance(self._module, DistributedDataParallel) else nullcontext()
