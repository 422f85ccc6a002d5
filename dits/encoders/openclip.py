"""Texts and frames -> embeddings in one joint space: one small protocol, implemented for any OpenCLIP model.

The bundled encoder (assets/encoder) is also an OpenCLIP model, loaded from its folder without a network.
"""

import copy
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dits.common.errors import EncoderError
from dits.common.files import ASSETS, parse_json, sha256_of
from dits.common.memory import compute_in_batches, memory_errors
from dits.encoders.quantization import dequantize, is_quantized
from dits.encoders.towers import WEIGHTS
from dits.encoders.transforms import FrameTransform

BUNDLED = "bundled"
BUNDLED_FOLDER = ASSETS / "encoder"
FINGERPRINT_SENTENCE = "a woman in a red coat walks her dog along the beach"

_TEXT_BATCH = 128
_IMAGE_BATCH = 256
_CPU_IMAGE_BATCH = 3  # few images in channels-last format fit into the CPU cache: convolutions run twice as fast
_GPU_SEGMENT_BATCH = 16
_MIN_ROWS = 4  # of a matrix product, see `OpenClipEncoder.encode_each`


class Encoder(Protocol):
    """The interface of an encoder. Embeddings are not normalised, float32, and on the CPU."""

    id: str
    dim: int
    frame_size: int
    device: torch.device
    transform: FrameTransform

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Embeddings (B, d) of B texts. A text beyond the encoder's token limit is cut (see `cut_text`)."""

    def encode_frames(self, frames: Tensor) -> Tensor:
        """Embeddings (B, F, d) of preprocessed frames (B, F, 3, H, W)."""

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """Embeddings (B, F, d) of resized and cropped frames (B, F, 3, H, W), uint8 (`transform.crop`)."""

    def preprocess(self, frames: np.ndarray) -> Tensor:
        """Network input (F, 3, H, W) for RGB frames (F, H, W, 3), uint8."""

    def cut_text(self, text: str) -> str | None:
        """The part of the text within the encoder's token limit, or None if the whole text is."""


@dataclass(frozen=True)
class _Source:
    """The source of an OpenCLIP model: the arguments for OpenCLIP, and the id that names files made with the model."""

    id: str
    model_name: str
    pretrained: str | None
    quick_gelu: bool
    overrides: dict[str, Any]


def load_encoder(name: str = BUNDLED, device: str | None = None) -> "OpenClipEncoder":
    """Load an encoder by name.

    Args:
        name: "bundled"; "NAME/TAG" for an OpenCLIP model and pretrained tag ("ViT-B-32/openai"), downloaded by
            OpenCLIP; "NAME/FILE.safetensors" for weights on disk; "local-dir:FOLDER" for a folder in OpenCLIP's
            format; "hf-hub:ORG/REPO".
        device: "cpu", "cuda", ...; by default the GPU if there is one.

    Raises:
        EncoderError: no such model, tag or file, damaged weights, or no network for a download.
    """
    return OpenClipEncoder(_resolve(name), device or ("cuda" if torch.cuda.is_available() else "cpu"))


class OpenClipEncoder:
    """An OpenCLIP model as an `Encoder`. Thread-safe.

    Attributes:
        module: the OpenCLIP model, in evaluation mode; code that trains it must restore this mode.
        tokenizer: OpenCLIP's tokenizer for the model.
    """

    def __init__(self, source: _Source, device: str) -> None:
        import open_clip

        self._source = source
        self.id = source.id
        self.quick_gelu = source.quick_gelu
        self.device = torch.device(device)
        model = _load(source, lambda: _create_model(source)).eval()
        self.module: Any = model.to(self.device, memory_format=torch.channels_last)
        self.tokenizer: Any = _load(source, lambda: open_clip.get_tokenizer(source.model_name))
        self._tokenizer_lock = threading.Lock()  # fast tokenizers reject concurrent calls
        self.transform = FrameTransform(dict(open_clip.get_model_preprocess_cfg(self.module)))
        self.frame_size = min(self.transform.size)
        self.dim = self.encode_text([FINGERPRINT_SENTENCE]).shape[-1]

    @property
    def segment_batch_size(self) -> int:
        """The fastest batch size, in segments, for `encode_pixels`; on the CPU larger batches do not fit the cache."""
        return _GPU_SEGMENT_BATCH if self.device.type == "cuda" else 1

    @property
    def temperature(self) -> float:
        """The factor of the cosines in the contrastive loss that the encoder was trained with."""
        return float(self.module.logit_scale.detach().exp())

    def on(self, device: str) -> "OpenClipEncoder":
        """A copy of the encoder on another device."""
        encoder = copy.copy(self)
        encoder.device = torch.device(device)
        encoder.module = copy.deepcopy(self.module).to(encoder.device)
        return encoder

    def model_config(self) -> dict[str, Any]:
        """OpenCLIP's configuration of the model, with the activation function in use."""
        import open_clip

        config = open_clip.get_model_config(self._source.model_name)
        return config | {"quick_gelu": self.quick_gelu or bool(config.get("quick_gelu", False))}

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """See `Encoder`."""
        batches = [texts[start : start + _TEXT_BATCH] for start in range(0, len(texts), _TEXT_BATCH)]
        with memory_errors():
            tokens = (self.tokenize(batch) for batch in batches)
            return torch.cat([compute_in_batches(self._text_embeddings, batch, len(batch)) for batch in tokens])

    @torch.inference_mode()
    def encode_each(self, texts: Sequence[str]) -> Tensor:
        """Like `encode_text`, but the embedding of a text does not depend on the other texts.

        Applies to transformers text towers. The result is identical to the last bit if a matrix product computes every
        row in the same way, as CPUs do from four rows on. Texts are batched by token length, because padding changes
        rounding, and all texts are projected in one product of at least four rows. Other towers need none of this:
        they pad every text to one length.
        """
        if not self._has_pooler:
            return self.encode_text(texts)
        tower = self.module.text
        tokens = F.pad(self.tokenize(texts), (0, _MIN_ROWS)).to(self.device)
        lengths = (tokens != 0).sum(dim=1)
        rows, pooled = [], []
        for length in lengths.unique().tolist():
            same_length = (lengths == length).nonzero()[:, 0]
            batch = tokens[same_length, : max(length, _MIN_ROWS)]
            mask = (batch != tower.config.pad_token_id).long()
            rows.append(same_length)
            pooled.append(tower.pooler(tower.transformer(input_ids=batch, attention_mask=mask), mask))
        in_order = torch.cat(pooled)[torch.cat(rows).argsort()]
        padded = F.pad(in_order, (0, 0, 0, max(0, _MIN_ROWS - len(texts))))
        return tower.proj(padded)[: len(texts)].float().cpu()

    @torch.inference_mode()
    def encode_frames(self, frames: Tensor) -> Tensor:
        """See `Encoder`."""
        batch_size = _CPU_IMAGE_BATCH if self.device.type == "cpu" else _IMAGE_BATCH
        with memory_errors():
            embeddings = compute_in_batches(self._image_embeddings, frames.flatten(0, 1), batch_size)
        return embeddings.unflatten(0, frames.shape[:2])

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """See `Encoder`. A frame that equals the one before it is not computed again: short clips repeat frames."""
        with memory_errors():
            frames = pixels.to(self.device, non_blocking=True).flatten(0, 1)
            is_new = F.pad((frames[1:] != frames[:-1]).flatten(1).any(dim=1), (1, 0), value=True)
            if is_new.all():
                return self.encode_frames(self.transform.normalise(frames.unflatten(0, pixels.shape[:2])))
            embeddings = self.encode_frames(self.transform.normalise(frames[is_new])[None])[0]
            return embeddings[is_new.cumsum(0).cpu() - 1].unflatten(0, pixels.shape[:2])

    def preprocess(self, frames: np.ndarray) -> Tensor:
        """See `Encoder`; this is OpenCLIP's own evaluation transform."""
        return self.transform.normalise(self.transform.crop(frames))

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """The input (B, L) of the text tower for B texts, on the CPU."""
        with self._tokenizer_lock:
            tokens = self.tokenizer(list(texts))
        if self._has_pooler:
            # A transformers tower masks padding, so columns that are padding for all texts only cost time.
            tokens = tokens[:, : int((tokens != 0).any(dim=0).nonzero().max()) + 1]
        return tokens

    def _text_embeddings(self, tokens: Tensor) -> Tensor:
        return self.module.encode_text(tokens.to(self.device)).float().cpu()

    def _image_embeddings(self, images: Tensor) -> Tensor:
        images = images.to(self.device).contiguous(memory_format=torch.channels_last)
        return self.module.encode_image(images).float().cpu()

    @property
    def _has_pooler(self) -> bool:
        """Whether the text tower is a transformers model."""
        return hasattr(getattr(self.module, "text", None), "pooler")

    def cut_text(self, text: str) -> str | None:
        """See `Encoder`. Found by bisection over words, or over characters if the text has no spaces."""
        tokens = self._tokens_of(text)
        if int(tokens[-1]) == 0:  # ends with padding: nothing was cut
            return None
        units, joiner = text.split(" "), " "
        if len(units) == 1:
            units, joiner = list(text), ""
        low, high = 0, len(units)  # fewer than `low` units give fewer tokens than the whole text
        while low < high:
            middle = (low + high) // 2
            if torch.equal(self._tokens_of(joiner.join(units[:middle])), tokens):
                high = middle
            else:
                low = middle + 1
        return None if low == len(units) else joiner.join(units[:low])

    def unknown_share(self, text: str) -> float:
        """The share, from 0 to 1, of tokens of the text outside the encoder's vocabulary (emoji, other scripts)."""
        tokenizer: Any = getattr(self.tokenizer, "tokenizer", None)  # OpenCLIP's own tokenizer encodes every byte
        unknown = getattr(tokenizer, "unk_token_id", None)
        if unknown is None:
            return 0.0
        special = set(tokenizer.all_special_ids) - {unknown}
        tokens = [token for token in self._tokens_of(text).tolist() if token not in special]
        return tokens.count(unknown) / max(1, len(tokens))

    def fingerprint(self) -> Tensor:
        """The embedding (d,) of a fixed sentence: distinguishes encoders with the same name and shapes."""
        return self.encode_text([FINGERPRINT_SENTENCE])[0]

    def _tokens_of(self, text: str) -> Tensor:
        with self._tokenizer_lock:
            return self.tokenizer([text])[0]


def _resolve(name: str) -> _Source:
    if name == BUNDLED:
        return _local_folder(BUNDLED_FOLDER, BUNDLED)
    if name.startswith("local-dir:"):
        folder = Path(name.removeprefix("local-dir:")).expanduser()
        return _local_folder(folder, folder.name)
    if name.startswith("hf-hub:"):
        return _Source(name, name, None, False, {})
    return _named_model(name)


def _local_folder(folder: Path, label: str) -> _Source:
    config_path, weights = folder / "open_clip_config.json", folder / WEIGHTS
    try:
        config = dict(parse_json(config_path.read_text(encoding="utf-8"))["model_cfg"])
        text = dict(config["text_cfg"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EncoderError(
            f"{config_path} is missing or is not an OpenCLIP configuration: give a folder in OpenCLIP's format."
        ) from error
    if not weights.is_file():
        raise EncoderError(
            f"The encoder's weights are missing: {weights}. Restore the file, or choose another encoder."
        )
    overrides = {}
    if "hf_tokenizer_name" in text and not (folder / "tokenizer.json").is_file():
        # Without this file transformers would silently use a tokenizer with an empty vocabulary.
        raise EncoderError(f"The encoder's tokenizer is missing: {folder / 'tokenizer.json'}. Restore the file.")
    if (folder / str(text.get("hf_model_name", "no text tower here"))).is_dir():
        local = str(folder / text["hf_model_name"])
        overrides["text_cfg"] = {**text, "hf_model_name": local, "hf_model_pretrained": False}
    quick_gelu = bool(config.get("quick_gelu", False))
    return _Source(f"{label}-{sha256_of(weights)[:8]}", f"local-dir:{folder}", None, quick_gelu, overrides)


def _named_model(name: str) -> _Source:
    import open_clip

    model, _, pretrained = name.partition("/")
    if model not in open_clip.list_models() or not pretrained:
        raise EncoderError(
            f"There is no encoder '{name}': use 'bundled', an OpenCLIP model and tag such as ViT-B-32/openai, "
            "NAME/FILE.safetensors, local-dir:FOLDER, or hf-hub:ORG/REPO."
        )
    tags = open_clip.list_pretrained_tags_by_model(model)
    if pretrained in tags:
        quick_gelu = bool((open_clip.get_pretrained_cfg(model, pretrained) or {}).get("quick_gelu", False))
        return _Source(name, model, pretrained, quick_gelu, {})
    path = Path(pretrained).expanduser()
    if path.suffix != ".safetensors":
        raise EncoderError(
            f"{model} has no pretrained tag '{pretrained}': its tags are {', '.join(tags) or 'none'}; "
            "local weights must be a .safetensors file."
        )
    if not path.is_file():
        raise EncoderError(f"The encoder's weights are missing: there is no file {path}.")
    quick_gelu = bool((open_clip.get_model_config(model) or {}).get("quick_gelu", False))
    return _Source(f"{model}-{sha256_of(path)[:8]}", model, str(path), quick_gelu, {})


def _create_model(source: _Source) -> torch.nn.Module:
    import open_clip
    from safetensors.torch import load_file

    weights = Path(source.model_name.removeprefix("local-dir:")) / WEIGHTS
    if source.model_name.startswith("local-dir:") and is_quantized(weights):
        model = open_clip.create_model(
            source.model_name, load_weights=False, force_quick_gelu=source.quick_gelu, **source.overrides
        )
        model.load_state_dict(dequantize(load_file(weights)))
        return model
    return open_clip.create_model(
        source.model_name,
        pretrained=source.pretrained,
        force_quick_gelu=source.quick_gelu,
        pretrained_hf=False,
        require_pretrained=True,
        **source.overrides,
    )


def _load(source: _Source, load: Callable[[], Any]) -> Any:
    """Call `load`; convert any failure to EncoderError, and hide the log lines that repeat it."""
    root, hub = logging.getLogger(), logging.getLogger("huggingface_hub")
    hub_level = hub.level
    root.addFilter(_not_from_open_clip)
    hub.setLevel(logging.ERROR)  # the hub logs a warning for every retry
    try:
        return load()
    except Exception as error:  # OpenCLIP, safetensors and the hub raise errors of many classes
        location = source.pretrained if source.pretrained and Path(source.pretrained).exists() else source.model_name
        raise EncoderError(_load_failure(source, location, error)) from error
    finally:
        root.removeFilter(_not_from_open_clip)
        hub.setLevel(hub_level)


def _not_from_open_clip(record: logging.LogRecord) -> bool:
    return "open_clip" not in record.pathname


def _load_failure(source: _Source, location: str, error: Exception) -> str:
    """The error message for weights that cannot be loaded from `location`."""
    if "local-dir:" in source.model_name or location != source.model_name:
        if _needs_hub(error):
            return (
                f"The encoder {source.id} needs more than its weights, a tokenizer or a configuration from a model hub "
                f"that cannot be reached ({_first_line(error)}): connect to the network, give a folder with all files, "
                "local-dir:FOLDER, or use the encoder 'bundled'."
            )
        return (
            f"The encoder's weights in {location.removeprefix('local-dir:')} are damaged or belong to another model "
            f"({_first_line(error)}): restore the file, or choose another encoder."
        )
    return (
        f"The encoder {source.id} could not be downloaded ({_first_line(error)}): connect to the network, give its "
        f"weights as a file, {'NAME' if source.pretrained is None else source.model_name}/FILE.safetensors, or as a "
        "folder in OpenCLIP's format, local-dir:FOLDER, or use the encoder 'bundled'."
    )


def _needs_hub(error: BaseException | None) -> bool:
    """Whether the error was caused by a file that must be downloaded from an unreachable hub."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    while error is not None and not isinstance(error, LocalEntryNotFoundError):
        error = error.__cause__ or error.__context__
    return error is not None


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].split(". ")[0][:200].rstrip(" :.") if lines else type(error).__name__
