"""Reads text and video embeddings of any model from a safetensors or npz file."""

import zipfile
from pathlib import Path

import numpy as np
import torch
from numpy.lib import format as npy
from safetensors import safe_open
from torch import Tensor

from analysis.flow import Flow, cosine_scores
from dits.common.errors import InputError, require
from dits.models.pooling import mean_pool

KEYS = ("text", "video", "pairs", "text_steps")
"""The arrays of a file: text (N, d); video (V, d), or frames (V, F, d); pairs, each text's video (N,) or rows of text
and video (P, 2), needed unless text i belongs to video i; text_steps (S, N, d), the texts' trajectories."""

MAX_BYTES, MAX_RATIO = 16 * 2**30, 20
"""Limits against small files that would fill the memory: at most 16 GiB unpacked, and above 256 MiB at most 20 times
the size on disk. Embeddings do not compress that well."""


def read_features(path: Path) -> Flow:
    """The flow of the texts, videos and optional steps in a file; see KEYS.

    Without `pairs`, text i belongs to video i, and both must have the same number. If `text_steps` does not begin with
    the texts themselves, they are prepended. Frames are pooled by their mean. Videos are ranked by the cosine.

    Raises:
        InputError: the file has neither format, is damaged or too large, has pickled objects or unknown keys, or its
            arrays do not fit together or are not finite.
    """
    arrays = _read(path)
    for key in arrays:
        require(key in KEYS, f"{path} has the unknown key '{key[:100]}': the keys are {', '.join(KEYS)}.")
    for key in ("text", "video"):
        require(key in arrays, f"{path} lacks the key '{key}': it must hold text (N, d) and video (V, d).")
    text, video = _floats(path, "text", arrays["text"], (2,)), _floats(path, "video", arrays["video"], (2, 3))
    require(
        text.shape[-1] == video.shape[-1],
        f"{path}: text has {text.shape[-1]} dimensions and video {video.shape[-1]}; they must have the same.",
    )
    rows, video_of = _pairs(path, arrays.get("pairs"), len(text), len(video))
    points = text[None]
    if "text_steps" in arrays:
        steps = _floats(path, "text_steps", arrays["text_steps"], (3,))
        require(
            steps.shape[1:] == text.shape,
            f"{path}: text_steps must be (steps, {len(text)}, {text.shape[1]}), not {_shape(steps)}.",
        )
        points = steps if torch.equal(steps[0], text) else torch.cat([points, steps])
    videos = mean_pool(video) if video.dim() == 3 else video
    return Flow(
        name=path.name,
        split="all",
        method="given",
        queries=text[rows],
        points=points[:, rows],
        videos=videos,
        video_of=video_of,
        own_videos=videos[torch.from_numpy(video_of)],
        video_side="mean" if video.dim() == 3 else "given",
        texts=tuple(f"text {row}" for row in rows.tolist()),
        video_ids=tuple(f"video {index}" for index in range(len(videos))),
        scores=cosine_scores(videos),
    )


def _read(path: Path) -> dict[str, Tensor]:
    require(path.is_file(), f"There is no file {path}: give a safetensors or npz file of embeddings.")
    try:
        if zipfile.is_zipfile(path):
            return _read_npz(path)
        _require_small(path)
        with safe_open(path, framework="pt") as stream:
            return {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118
    except InputError:
        raise
    except Exception as error:  # zipfile, its decompressors, NumPy and safetensors each raise their own errors
        reason = str(error)[:200].rstrip(".") or type(error).__name__
        raise InputError(f"{path} is not a safetensors or npz file, or is damaged: {reason}.") from error


def _read_npz(path: Path) -> dict[str, Tensor]:
    with zipfile.ZipFile(path) as archive:
        total = sum(entry.file_size for entry in archive.infolist())
        require(total <= MAX_BYTES, f"{path} unpacks to {total / 2**30:.0f} GiB, more than {MAX_BYTES // 2**30} GiB.")
        ratio = total / path.stat().st_size
        require(
            total <= 2**28 or ratio <= MAX_RATIO,
            f"{path} unpacks to {ratio:.0f} times its size: embeddings never compress this much; the file is refused.",
        )
        return {name.removesuffix(".npy"): _array(path, archive, name) for name in archive.namelist()}


def _require_small(path: Path) -> None:
    """Raises InputError if a file is too large, or sparse: holes need no disk space, but do need memory."""
    status = path.stat()
    size, on_disk = status.st_size, getattr(status, "st_blocks", status.st_size // 512) * 512  # no blocks on Windows
    require(size <= MAX_BYTES, f"{path} has {size / 2**30:.0f} GiB, more than {MAX_BYTES // 2**30} GiB.")
    require(
        size <= max(2**28, MAX_RATIO * on_disk),
        f"{path} holds {size / 2**30:.0f} GiB in {on_disk / 2**20:.0f} MiB of the disk: embeddings never compress "
        "this much; the file is refused.",
    )


def _array(path: Path, archive: zipfile.ZipFile, name: str) -> Tensor:
    with archive.open(name) as stream:
        try:
            array = npy.read_array(stream, allow_pickle=False, max_header_size=10_000)
            return torch.from_numpy(np.ascontiguousarray(array))
        except (ValueError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]  # NumPy's messages have several lines
            raise InputError(
                f"{path}: '{name[:100]}' is not a plain array of numbers ({reason}); pickled objects are not read."
            ) from error


def _floats(path: Path, key: str, values: Tensor, dimensions: tuple[int, ...]) -> Tensor:
    require(
        values.dtype.is_floating_point,
        f"{path}: {key} holds {str(values.dtype).removeprefix('torch.')}, but embeddings are floating-point numbers.",
    )
    require(
        values.dim() in dimensions and 0 not in values.shape,
        f"{path}: {key} has the shape {_shape(values)}, which is not that of embeddings.",
    )
    values = values.float()
    require(bool(values.isfinite().all()), f"{path}: {key} holds NaN or infinite numbers.")
    return values


def _pairs(path: Path, pairs: Tensor | None, texts: int, videos: int) -> tuple[Tensor, np.ndarray]:
    """The rows of the paired texts, and the index of each one's video."""
    if pairs is None:
        require(texts == videos, f"{path} has {texts} texts and {videos} videos: give each text's video in 'pairs'.")
        return torch.arange(texts), np.arange(texts)
    require(
        pairs.dtype in (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8)
        and (pairs.shape == (texts,) or (pairs.dim() == 2 and pairs.shape[1] == 2 and len(pairs) > 0)),
        f"{path}: pairs must be whole numbers: each text's video ({texts},), or text and video (P, 2).",
    )
    pairs = pairs.long()
    rows, own = (torch.arange(texts), pairs) if pairs.dim() == 1 else (pairs[:, 0], pairs[:, 1])
    for key, index, count in (("text", rows, texts), ("video", own, videos)):
        in_range = int(index.min()) >= 0 and int(index.max()) < count
        require(in_range, f"{path}: pairs has a {key} outside 0 to {count - 1}.")
    return rows, own.numpy()


def _shape(values: Tensor) -> str:
    return "(" + ", ".join(map(str, values.shape)) + ")"
