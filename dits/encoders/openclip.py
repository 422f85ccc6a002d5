"""Texts and frames -> embeddings in one joint space: one small protocol, served by any OpenCLIP model.

The bundled encoder (assets/encoder) is an OpenCLIP model as well, loaded from its folder with no network.
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
from dits.common.memory import in_parts, memory_errors
from dits.encoders.quantization import dequantize, is_quantized
from dits.encoders.transforms import FrameTransform

BUNDLED = "bundled"
BUNDLED_FOLDER = ASSETS / "encoder"
FINGERPRINT_SENTENCE = "a woman in a red coat walks her dog along the beach"

_TEXTS_AT_ONCE = 128
_IMAGES_AT_ONCE = 256
_SEGMENTS_AT_ONCE_ON_GPU = 16  # on the CPU more than one would only fall out of the cache
_IMAGES_AT_ONCE_ON_CPU = 3  # few images with their channels last stay in the cache: convolutions run twice as fast
_MIN_ROWS = 4  # of a product of matrices, see `OpenClipEncoder.encode_each`
_WEIGHTS_NAME = "open_clip_model.safetensors"


class Encoder(Protocol):
    """What the rest of the library asks of an encoder. Embeddings come unnormalised, float32, on the CPU."""

    id: str
    dim: int
    frame_size: int
    device: torch.device
    transform: FrameTransform

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Embeddings (B, d) of B sentences; what exceeds the encoder's limit is cut (see `cut_text`)."""

    def encode_frames(self, frames: Tensor) -> Tensor:
        """Embeddings (B, F, d) of preprocessed frames (B, F, 3, H, W)."""

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """Embeddings (B, F, d) of frames that are resized and cropped (B, F, 3, H, W), uint8 (`transform.crop`)."""

    def preprocess(self, frames: np.ndarray) -> Tensor:
        """Network input (F, 3, H, W) of RGB frames (F, H, W, 3), uint8."""

    def cut_text(self, text: str) -> str | None:
        """The part of the text that the encoder reads, where that is not all of it; None where it is."""


@dataclass(frozen=True)
class _Source:
    """Where an OpenCLIP model comes from: arguments for OpenCLIP, and the name that artefacts are filed under."""

    id: str
    model_name: str
    pretrained: str | None
    quick_gelu: bool
    overrides: dict[str, Any]


def load_encoder(name: str = BUNDLED, device: str | None = None) -> "OpenClipEncoder":
    """An encoder by name.

    Args:
        name: "bundled"; "NAME/TAG" for an OpenCLIP model and pretrained tag ("ViT-B-32/openai"), downloaded by
            OpenCLIP; "NAME/FILE.safetensors" for weights on disk; "local-dir:FOLDER" for a folder in OpenCLIP's
            format; "hf-hub:ORG/REPO".
        device: "cpu", "cuda", ...; by default the GPU where there is one.

    Raises:
        EncoderError: no such model, tag or file, damaged weights, or no network to download them.
    """
    source = _resolve(name)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return OpenClipEncoder(source, device)


class OpenClipEncoder:
    """Any OpenCLIP model as an `Encoder`. Safe to share between threads."""

    def __init__(self, source: _Source, device: str) -> None:
        import open_clip

        self._source = source
        self.id = source.id
        self.quick_gelu = source.quick_gelu
        self.device = torch.device(device)
        self._model: Any = (
            _loaded(source, lambda: _create_model(source)).eval().to(self.device, memory_format=torch.channels_last)
        )
        self._tokenizer = _loaded(source, lambda: open_clip.get_tokenizer(source.model_name))
        self._tokenizer_lock = threading.Lock()  # fast tokenizers refuse two callers at once
        self.transform = FrameTransform(dict(open_clip.get_model_preprocess_cfg(self._model)))
        self.frame_size = min(self.transform.size)
        self.dim = self.encode_text([FINGERPRINT_SENTENCE]).shape[-1]

    @property
    def segments_at_once(self) -> int:
        """How many segments' frames `encode_pixels` is best given at once."""
        return _SEGMENTS_AT_ONCE_ON_GPU if self.device.type == "cuda" else 1

    def on(self, device: str) -> "OpenClipEncoder":
        """The same encoder on another device; this one stays where it is."""
        moved = copy.copy(self)
        moved.device = torch.device(device)
        moved._model = copy.deepcopy(self._model).to(moved.device)
        return moved

    @property
    def module(self) -> Any:
        """The OpenCLIP model itself, in evaluation mode until it is trained; what trains it must set it back."""
        return self._model

    @property
    def tokenizer(self) -> Any:
        """OpenCLIP's tokenizer of the model."""
        return self._tokenizer

    def model_config(self) -> dict[str, Any]:
        """OpenCLIP's configuration of the model, with the activation that it was loaded with."""
        import open_clip

        config = open_clip.get_model_config(self._source.model_name)
        return config | {"quick_gelu": self.quick_gelu or bool(config.get("quick_gelu", False))}

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Embeddings (B, d) of B sentences; what exceeds the encoder's limit is cut (see `cut_text`)."""
        batches = [texts[start : start + _TEXTS_AT_ONCE] for start in range(0, len(texts), _TEXTS_AT_ONCE)]
        with memory_errors():
            tokens = (self.tokenize(batch) for batch in batches)
            return torch.cat([in_parts(self._text_embeddings, batch, len(batch)) for batch in tokens])

    @torch.inference_mode()
    def encode_each(self, texts: Sequence[str]) -> Tensor:
        """`encode_text`, so that no sentence's embedding depends on the others' where the text tower is a transformers
        model: to the last bit, where products of matrices treat each row alike, as they do on CPUs from four rows on.

        Sentences of one length are encoded together, for padding changes how sums are rounded; all are projected
        together, four at least. Other towers pad every sentence to one length.
        """
        if not self._has_pooler:
            return self.encode_text(texts)
        tower = self._model.text
        tokens = F.pad(self.tokenize(texts), (0, _MIN_ROWS)).to(self.device)
        lengths = (tokens != 0).sum(dim=1)
        rows, pooled = [], []
        for length in lengths.unique().tolist():
            alike = (lengths == length).nonzero()[:, 0]
            some = tokens[alike, : max(length, _MIN_ROWS)]
            mask = (some != tower.config.pad_token_id).long()
            rows.append(alike)
            pooled.append(tower.pooler(tower.transformer(input_ids=some, attention_mask=mask), mask))
        in_order = torch.cat(pooled)[torch.cat(rows).argsort()]
        least = F.pad(in_order, (0, 0, 0, max(0, _MIN_ROWS - len(texts))))
        return tower.proj(least)[: len(texts)].float().cpu()

    @torch.inference_mode()
    def encode_frames(self, frames: Tensor) -> Tensor:
        """Embeddings (B, F, d) of preprocessed frames (B, F, 3, H, W)."""
        at_once = _IMAGES_AT_ONCE_ON_CPU if self.device.type == "cpu" else _IMAGES_AT_ONCE
        with memory_errors():
            embeddings = in_parts(self._image_embeddings, frames.flatten(0, 1), at_once)
        return embeddings.unflatten(0, frames.shape[:2])

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """Embeddings (B, F, d) of frames that are resized and cropped (B, F, 3, H, W), uint8 (`transform.crop`)."""
        with memory_errors():
            return self.encode_frames(self.transform.normalise(pixels.to(self.device, non_blocking=True)))

    def preprocess(self, frames: np.ndarray) -> Tensor:
        """Network input (F, 3, H, W) of RGB frames (F, H, W, 3), uint8: OpenCLIP's own evaluation transform."""
        return self.transform.normalise(self.transform.crop(frames))

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """The text tower's input (B, L) of B sentences, on the CPU."""
        with self._tokenizer_lock:
            tokens = self._tokenizer(list(texts))
        if self._has_pooler:
            # A transformers tower masks its padding, so padding that no text of the batch needs only costs time.
            tokens = tokens[:, : int((tokens != 0).any(dim=0).nonzero().max()) + 1]
        return tokens

    def _text_embeddings(self, tokens: Tensor) -> Tensor:
        """Embeddings (B, d) of the text tower's input (B, L)."""
        return self._model.encode_text(tokens.to(self.device)).float().cpu()

    def _image_embeddings(self, images: Tensor) -> Tensor:
        """Embeddings (B, d) of preprocessed images (B, 3, H, W)."""
        images = images.to(self.device).contiguous(memory_format=torch.channels_last)
        return self._model.encode_image(images).float().cpu()

    @property
    def _has_pooler(self) -> bool:
        """Whether the text tower is a transformers model."""
        return hasattr(getattr(self._model, "text", None), "pooler")

    def cut_text(self, text: str) -> str | None:
        """The part of the text that the encoder reads, where that is not all of it; None where it is.

        Found by bisection over words, or over characters of a text without spaces: tokenizers do not tell.
        """
        whole = self._tokens_of(text)
        if int(whole[-1]) == 0:  # padding left: nothing was cut
            return None
        units = text.split(" ")
        joiner = " "
        if len(units) == 1:
            units, joiner = list(text), ""
        low, high = 0, len(units)  # the first `low` units do not reach the end of what is read
        while low < high:
            middle = (low + high) // 2
            if torch.equal(self._tokens_of(joiner.join(units[:middle])), whole):
                high = middle
            else:
                low = middle + 1
        return None if low == len(units) else joiner.join(units[:low])

    def unknown_share(self, text: str) -> float:
        """The share of the text's tokens, from 0 to 1, that the encoder has no word for (emoji, other scripts)."""
        tokenizer: Any = getattr(self._tokenizer, "tokenizer", None)  # OpenCLIP's own tokenizer knows every byte
        unknown = getattr(tokenizer, "unk_token_id", None)
        if unknown is None:
            return 0.0
        special = set(tokenizer.all_special_ids) - {unknown}
        tokens = [token for token in self._tokens_of(text).tolist() if token not in special]
        return tokens.count(unknown) / max(1, len(tokens))

    def fingerprint(self) -> Tensor:
        """The embedding (d,) of one fixed sentence: tells encoders apart that share a name and shapes."""
        return self.encode_text([FINGERPRINT_SENTENCE])[0]

    def _tokens_of(self, text: str) -> Tensor:
        with self._tokenizer_lock:
            return self._tokenizer([text])[0]


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
    config_path, weights = folder / "open_clip_config.json", folder / _WEIGHTS_NAME
    try:
        config = dict(parse_json(config_path.read_text(encoding="utf-8"))["model_cfg"])
        text = dict(config["text_cfg"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EncoderError(
            f"{config_path} is missing or no OpenCLIP configuration: name a folder in OpenCLIP's format."
        ) from error
    if not weights.is_file():
        raise EncoderError(
            f"The encoder's weights are missing: {weights}. Restore the file, or choose another encoder."
        )
    overrides = {}
    if "hf_tokenizer_name" in text and not (folder / "tokenizer.json").is_file():
        # Without it transformers would go on with a tokenizer that knows no word.
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
            "NAME/FILE.safetensors, or local-dir:FOLDER."
        )
    tags = open_clip.list_pretrained_tags_by_model(model)
    if pretrained in tags:
        quick_gelu = bool((open_clip.get_pretrained_cfg(model, pretrained) or {}).get("quick_gelu", False))
        return _Source(name, model, pretrained, quick_gelu, {})
    path = Path(pretrained).expanduser()
    if path.suffix != ".safetensors":
        raise EncoderError(
            f"{model} has no pretrained tag '{pretrained}': its tags are {', '.join(tags) or 'none'}; "
            "weights on disk must be a .safetensors file."
        )
    if not path.is_file():
        raise EncoderError(f"The encoder's weights are missing: there is no file {path}.")
    quick_gelu = bool((open_clip.get_model_config(model) or {}).get("quick_gelu", False))
    return _Source(f"{model}-{sha256_of(path)[:8]}", model, str(path), quick_gelu, {})


def _create_model(source: _Source) -> torch.nn.Module:
    import open_clip
    from safetensors.torch import load_file

    weights = Path(source.model_name.removeprefix("local-dir:")) / _WEIGHTS_NAME
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


def _loaded(source: _Source, load: Callable[[], Any]) -> Any:
    """What `load` returns; any failure as one sentence on the encoder, without the log lines that repeat it."""
    root, hub = logging.getLogger(), logging.getLogger("huggingface_hub")
    hub_level = hub.level
    root.addFilter(_not_from_open_clip)
    hub.setLevel(logging.ERROR)  # it warns of every retry
    try:
        return load()
    except Exception as error:  # OpenCLIP, safetensors and the hub each raise their own; all mean the same here
        where = source.pretrained if source.pretrained and Path(source.pretrained).exists() else source.model_name
        raise EncoderError(_why_not_loaded(source, where, error)) from error
    finally:
        root.removeFilter(_not_from_open_clip)
        hub.setLevel(hub_level)


def _not_from_open_clip(record: logging.LogRecord) -> bool:
    return "open_clip" not in record.pathname


def _why_not_loaded(source: _Source, where: str, error: Exception) -> str:
    if "local-dir:" in source.model_name or where != source.model_name:
        if _needs_hub(error):
            return (
                f"The encoder {source.id} needs more than its weights, a tokenizer or a configuration from a model hub "
                f"that cannot be reached ({_first_line(error)}): connect to the network, give a folder that holds them "
                "all, local-dir:FOLDER, or use the encoder 'bundled'."
            )
        return (
            f"The encoder's weights in {where.removeprefix('local-dir:')} are damaged or belong to another model "
            f"({_first_line(error)}): restore the file, or choose another encoder."
        )
    return (
        f"The encoder {source.id} could not be downloaded ({_first_line(error)}): connect to the network, give its "
        f"weights as a file, {'NAME' if source.pretrained is None else source.model_name}/FILE.safetensors, or as a "
        "folder in OpenCLIP's format, local-dir:FOLDER, or use the encoder 'bundled'."
    )


def _needs_hub(error: BaseException | None) -> bool:
    """Whether an error came of a file that a hub, which cannot be reached, has."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    while error is not None and not isinstance(error, LocalEntryNotFoundError):
        error = error.__cause__ or error.__context__
    return error is not None


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].split(". ")[0][:200].rstrip(" :.") if lines else type(error).__name__
