"""Frame embeddings of a corpus: computed once per encoder, cached as safetensors files named by a hash of inputs.

Those of a whole corpus are one file. Those of single splits, and of interrupted runs, are cached by clip
(dits.corpora.clip_cache).
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dits.common.errors import CorpusError
from dits.common.files import ASSETS, atomic_path, cache_root, parse_json, sha256_of_json
from dits.corpora.clip_cache import ClipCache, ClipEmbeddings, FileState
from dits.corpora.clip_loader import ClipReader, read_all, worker_count
from dits.corpora.corpus import FRAMES, Clip, Corpus, Progress
from dits.encoders.openclip import Encoder

_FORMAT = 1
_HEADER = "dits"
_CLIPS_PER_PART = 16


@dataclass(frozen=True)
class CorpusEmbeddings:
    """Embeddings of the videos of a corpus.

    Attributes:
        encoder: the id of the encoder.
        ids: the ids of the videos, in order.
        frames: (V, F, d) frame embeddings, not normalised, float32; those of an index are float16, mapped from a file.
        times: (V, F) the time of each frame, in seconds.
    """

    encoder: str
    ids: tuple[str, ...]
    frames: Tensor
    times: Tensor

    def select(self, ids: Sequence[str]) -> "CorpusEmbeddings":
        """The embeddings of the given videos, in this order, float32.

        Raises:
            CorpusError: a video has no embeddings.
        """
        position = {video: index for index, video in enumerate(self.ids)}
        missing = [video for video in ids if video not in position]
        if missing:
            raise CorpusError(f"There are no embeddings of {missing[0]}: embed the corpus again.")
        rows = torch.tensor([position[video] for video in ids])
        return CorpusEmbeddings(self.encoder, tuple(ids), self.frames[rows].float(), self.times[rows])


def corpus_embeddings(
    corpus: Corpus,
    encoder: Encoder,
    progress: Progress | None = None,
    notice: Callable[[str], None] | None = None,
    ids: Sequence[str] | None = None,
) -> CorpusEmbeddings:
    """The embeddings of the corpus: shipped, or cached, or else computed and cached.

    Args:
        progress: called with the number of embedded videos, and the total.
        notice: called with a sentence if a file of embeddings is damaged and is computed again.
        ids: the videos to embed, in the order of the result; by default all. Others are not computed.

    Raises:
        CorpusError: a video file is missing, or a video is not in the corpus.
        VideoError: a video cannot be decoded.
        StorageError: the cache folder cannot be written.
    """
    unknown = set(ids or ()) - set(corpus.ids)
    if unknown:
        raise CorpusError(f"There is no video {min(unknown)} in corpus '{corpus.name}': choose from its videos.")
    for path in (shipped_path(corpus, encoder), cached_path(corpus, encoder)):
        if not path.is_file():
            continue
        try:
            embeddings = load_embeddings(path, corpus, encoder)
            break
        except CorpusError as error:
            if notice:
                notice(f"{error} They are computed again.")
    else:
        embeddings = _embed_and_cache(corpus, set(corpus.ids if ids is None else ids), encoder, progress)
    return embeddings if ids is None else embeddings.select(ids)


def embed_corpus(
    corpus: Corpus, encoder: Encoder, progress: Progress | None = None, workers: int | None = None
) -> CorpusEmbeddings:
    """Embed FRAMES frames of every video, from the mid-points of equal parts, without the cache.

    Args:
        workers: the number of worker processes that decode and prefetch; by default `worker_count`.

    Raises:
        VideoError: a video cannot be decoded.
    """
    workers = worker_count(len(corpus)) if workers is None else workers
    frames, times = embed_clips(corpus.clips, encoder, progress, workers)
    return CorpusEmbeddings(encoder.id, tuple(corpus.ids), frames, times)


def embed_clips(
    clips: Sequence[Clip], encoder: Encoder, progress: Progress | None = None, workers: int = 0
) -> tuple[Tensor, Tensor]:
    """Frame embeddings (V, FRAMES, d) of clips and the times of the frames (V, FRAMES), in seconds.

    Embeddings are rounded to float16, as in the cache, so computed and cached embeddings are identical.

    Raises:
        VideoError: a video cannot be decoded.
    """
    rows = []
    for done, row in enumerate(_embed(clips, encoder, workers), start=1):
        rows.append(row)
        if progress:
            progress(done, len(clips))
    frames, times = zip(*rows, strict=True)
    return torch.stack(frames).half().float(), torch.stack(times)


def _embed(clips: Sequence[Clip], encoder: Encoder, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the frame embeddings (FRAMES, d) and times (FRAMES,) of each clip, in order; workers prefetch clips."""
    for clip in read_all(clips, ClipReader(encoder.transform), workers, pin_memory=encoder.device.type == "cuda"):
        yield encoder.encode_pixels(clip.pixels[None])[0], clip.times


def _embed_and_cache(corpus: Corpus, ids: set[str], encoder: Encoder, progress: Progress | None) -> CorpusEmbeddings:
    """Compute the embeddings of some videos, except cached ones, and cache them.

    They are cached in parts, so that an interruption loses at most one part. The complete ones replace the parts.
    """
    clips = [clip for clip in corpus if clip.id in ids]
    cache = ClipCache(encoder)
    keys = cache.keys(clips, _states(corpus.name, clips))
    rows, files = cache.read(keys)
    missing = [n for n, key in enumerate(keys) if key not in rows]
    done = len(clips) - len(missing)
    stream = _embed([clips[n] for n in missing], encoder, worker_count(len(missing)))
    for start in range(0, len(missing), _CLIPS_PER_PART):
        part: dict[str, ClipEmbeddings] = {}
        for n in missing[start : start + _CLIPS_PER_PART]:
            frames, times = next(stream)
            part[keys[n]] = ClipEmbeddings(frames.half(), times)  # rounded as in the cache
            done += 1
            if progress:
                progress(done, len(clips))
        cache.write(part)
        rows |= part
    frames, times = (torch.stack([rows[key][field] for key in keys]) for field in (0, 1))
    embeddings = CorpusEmbeddings(encoder.id, tuple(clip.id for clip in clips), frames.float(), times)
    if len(clips) == len(corpus):
        save_embeddings(cached_path(corpus, encoder), corpus, embeddings)
        cache.remove(keys)
    elif missing or files > 1:
        cache.remove(keys, but=cache.write({key: rows[key] for key in keys}))
    return embeddings


def embeddings_name(corpus: Corpus, encoder: Encoder) -> str:
    """The name of a corpus's embeddings: a hash of the encoder, the clips and, unless they are shipped, the files.

    Unlike the numbers, the name does not depend on the number of threads.

    Raises:
        CorpusError: a file is missing.
    """
    shipped = shipped_path(corpus, encoder)
    return shipped.stem if shipped.is_file() else cached_path(corpus, encoder).stem


def shipped_path(corpus: Corpus, encoder: Encoder) -> Path:
    """The path of the embeddings that the repository ships for a corpus and an encoder; the file may not exist."""
    return ASSETS / corpus.name / f"embeddings-{_key(corpus, encoder)}.safetensors"


def cached_path(corpus: Corpus, encoder: Encoder) -> Path:
    """The path of the cached embeddings for an encoder and the current files of a corpus.

    Raises:
        CorpusError: a file is missing.
    """
    files = [list(state) for state in _states(corpus.name, corpus.clips)]
    return cache_root() / "embeddings" / f"{corpus.name}-{_key(corpus, encoder, files)}.safetensors"


def save_embeddings(path: Path, corpus: Corpus, embeddings: CorpusEmbeddings) -> None:
    """Write embeddings in float16, atomically.

    Raises:
        StorageError: the folder cannot be written, or the disk is full.
    """
    ids = list(embeddings.ids)
    header = {"format": _FORMAT, "corpus": corpus.name, "encoder": embeddings.encoder, "ids": ids}
    tensors = {"frames": embeddings.frames.half().contiguous(), "times": embeddings.times.contiguous()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={_HEADER: json.dumps(header)})


def load_embeddings(path: Path, corpus: Corpus, encoder: Encoder) -> CorpusEmbeddings:
    """Load the embeddings of this corpus by this encoder.

    Raises:
        CorpusError: the file is damaged, or has embeddings of other videos or of another encoder.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = parse_json((file.metadata() or {})[_HEADER])
            frames, times = file.get_tensor("frames"), file.get_tensor("times")
        fits = (
            header["encoder"] == encoder.id
            and header["ids"] == corpus.ids
            and frames.shape == (len(corpus), FRAMES, encoder.dim)
            and times.shape == (len(corpus), FRAMES)
        )
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise CorpusError(f"The embeddings in {path} are damaged.") from error
    if not fits:
        raise CorpusError(f"The embeddings in {path} are of other videos or of another encoder.")
    return CorpusEmbeddings(encoder.id, tuple(corpus.ids), frames.float(), times)


def _states(corpus: str, clips: Sequence[Clip]) -> list[FileState]:
    """The sizes and times of the clips' files; raises CorpusError if one is missing."""
    try:
        return [((status := clip.path.stat()).st_size, status.st_mtime_ns) for clip in clips]
    except OSError as error:
        raise CorpusError(f"A clip of corpus '{corpus}' is missing: there is no file {error.filename}.") from error


def _key(corpus: Corpus, encoder: Encoder, files: list[list[int]] | None = None) -> str:
    inputs: dict[str, Any] = {"encoder": encoder.id, "ids": corpus.ids, "frames": FRAMES, "format": _FORMAT}
    parts = [[clip.start, clip.end] for clip in corpus]
    if any(part != [None, None] for part in parts):
        inputs["parts"] = parts
    return sha256_of_json(inputs | ({"files": files} if files else {}))[:12]
