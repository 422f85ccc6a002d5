"""Frame embeddings of a corpus: computed once per encoder, kept as safetensors, named by what made them."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dits.common.errors import CorpusError
from dits.common.files import ASSETS, atomic_path, cache_root, parse_json, sha256_of_json
from dits.corpora.clip_loader import ClipReader, read_all, worth_workers
from dits.corpora.corpus import FRAMES, Clip, Corpus
from dits.encoders.openclip import Encoder

Progress = Callable[[int, int], None]

_FORMAT = 1
_HEADER = "dits"
_CLIPS_IN_A_PART = 16


@dataclass(frozen=True)
class CorpusEmbeddings:
    """Embeddings of a corpus's videos.

    Attributes:
        encoder: id of the encoder.
        ids: the videos, in order.
        frames: (V, F, d) frame embeddings, not normalised, float32; of an index float16, mapped from a file.
        times: (V, F) when each frame is shown, in seconds.
    """

    encoder: str
    ids: tuple[str, ...]
    frames: Tensor
    times: Tensor

    def select(self, ids: Sequence[str]) -> "CorpusEmbeddings":
        """The embeddings of some of the videos, in the order given, float32.

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
) -> CorpusEmbeddings:
    """The corpus's embeddings: shipped ones where they fit, else those in the cache folder, else computed and kept.

    Args:
        progress: told how many videos of how many are embedded, while they are.
        notice: told in a sentence when a file of embeddings is damaged and will be made again.

    Raises:
        CorpusError: a video file is missing.
        VideoError: a video cannot be decoded.
        StorageError: the cache folder cannot be written.
    """
    for path in (shipped_path(corpus, encoder), cached_path(corpus, encoder)):
        if not path.is_file():
            continue
        try:
            return load_embeddings(path, corpus, encoder)
        except CorpusError as error:
            if notice:
                notice(f"{error} They are computed again.")
    return _embed_in_parts(corpus, encoder, progress)


def embed_corpus(
    corpus: Corpus, encoder: Encoder, progress: Progress | None = None, workers: int | None = None
) -> CorpusEmbeddings:
    """Embeds FRAMES frames of every video: the mid-points of as many equal segments.

    Args:
        workers: processes that decode ahead of the encoder; by default as many as the corpus is worth.

    Raises:
        VideoError: a video cannot be decoded.
    """
    workers = worth_workers(len(corpus)) if workers is None else workers
    frames, times = embed_clips(corpus.clips, encoder, progress, workers)
    return CorpusEmbeddings(encoder.id, tuple(corpus.ids), frames, times)


def embed_clips(
    clips: Sequence[Clip], encoder: Encoder, progress: Progress | None = None, workers: int = 0
) -> tuple[Tensor, Tensor]:
    """Frame embeddings (V, FRAMES, d) of clips and when each frame is shown (V, FRAMES), in seconds.

    The embeddings are rounded to float16, as they are kept: a first run and one that reads the cache do not differ.

    Raises:
        VideoError: a video cannot be decoded.
    """
    rows = []
    for done, row in enumerate(_embedded(clips, encoder, workers), start=1):
        rows.append(row)
        if progress:
            progress(done, len(clips))
    frames, times = zip(*rows, strict=True)
    return torch.stack(frames).half().float(), torch.stack(times)


def _embedded(clips: Sequence[Clip], encoder: Encoder, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Each clip's frame embeddings (FRAMES, d) and times (FRAMES,), in order, the next clips being read meanwhile."""
    on_gpu = encoder.device.type == "cuda"
    for clip in read_all(clips, ClipReader(encoder.transform), workers, on_gpu):
        yield encoder.encode_pixels(clip.pixels[None])[0], clip.times


def _embed_in_parts(corpus: Corpus, encoder: Encoder, progress: Progress | None) -> CorpusEmbeddings:
    """The corpus's embeddings, computed and kept; a part is what an interruption loses at most."""
    cuts = range(0, len(corpus), _CLIPS_IN_A_PART)
    parts = [Corpus(f"{corpus.name}-part", corpus.clips[cut : cut + _CLIPS_IN_A_PART]) for cut in cuts]
    paths = [cached_path(part, encoder) for part in parts]
    kept = [_kept_part(path, part, encoder) for path, part in zip(paths, parts, strict=True)]
    missing = [clip for part, found in zip(parts, kept, strict=True) if found is None for clip in part]
    stream = _embedded(missing, encoder, worth_workers(len(missing)))
    whole: list[CorpusEmbeddings] = []
    for path, part, found in zip(paths, parts, kept, strict=True):
        if found is None:
            rows = []
            for done, row in enumerate(islice(stream, len(part)), start=1):
                rows.append(row)
                if progress:
                    progress(_CLIPS_IN_A_PART * len(whole) + done, len(corpus))
            frames, times = (torch.stack(values) for values in zip(*rows, strict=True))
            found = CorpusEmbeddings(encoder.id, tuple(part.ids), frames, times)
            save_embeddings(path, part, found)
        whole.append(found)
    frames, times = torch.cat([part.frames for part in whole]), torch.cat([part.times for part in whole])
    rounded = frames.half().float()  # as they are kept: a first run and those that read the cache must not differ
    embeddings = CorpusEmbeddings(encoder.id, tuple(corpus.ids), rounded, times)
    save_embeddings(cached_path(corpus, encoder), corpus, embeddings)
    for path in paths:
        path.unlink(missing_ok=True)
    return embeddings


def _kept_part(path: Path, part: Corpus, encoder: Encoder) -> CorpusEmbeddings | None:
    """A part that an interrupted run has kept; None where it is not there, or damaged."""
    try:
        return load_embeddings(path, part, encoder)
    except CorpusError:
        return None


def embeddings_name(corpus: Corpus, encoder: Encoder) -> str:
    """Names a corpus's embeddings by what makes them: the encoder, the clips, and their files unless they are shipped.

    Other than the numbers it does not depend on the number of threads that computed them.

    Raises:
        CorpusError: a file is missing.
    """
    shipped = shipped_path(corpus, encoder)
    return shipped.stem if shipped.is_file() else cached_path(corpus, encoder).stem


def shipped_path(corpus: Corpus, encoder: Encoder) -> Path:
    """Where the repository ships a corpus's embeddings under an encoder, if it does."""
    return ASSETS / corpus.name / f"embeddings-{_key(corpus, encoder)}.safetensors"


def cached_path(corpus: Corpus, encoder: Encoder) -> Path:
    """Where the cache folder keeps the embeddings of a corpus's files, as they are now, under an encoder.

    Raises:
        CorpusError: a file is missing.
    """
    try:
        files = [[(stat := clip.path.stat()).st_size, stat.st_mtime_ns] for clip in corpus]
    except OSError as error:
        raise CorpusError(f"A clip of corpus '{corpus.name}' is missing: there is no file {error.filename}.") from error
    return cache_root() / "embeddings" / f"{corpus.name}-{_key(corpus, encoder, files)}.safetensors"


def save_embeddings(path: Path, corpus: Corpus, embeddings: CorpusEmbeddings) -> None:
    """Writes embeddings in float16, whole or not at all.

    Raises:
        StorageError: the folder cannot be written, or the disk is full.
    """
    header = {
        "format": _FORMAT,
        "corpus": corpus.name,
        "encoder": embeddings.encoder,
        "ids": list(embeddings.ids),
    }
    tensors = {"frames": embeddings.frames.half().contiguous(), "times": embeddings.times.contiguous()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={_HEADER: json.dumps(header)})


def load_embeddings(path: Path, corpus: Corpus, encoder: Encoder) -> CorpusEmbeddings:
    """The embeddings of exactly this corpus under this encoder.

    Raises:
        CorpusError: the file is damaged, or holds another corpus's or another encoder's embeddings.
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


def _key(corpus: Corpus, encoder: Encoder, files: list[list[int]] | None = None) -> str:
    made_from: dict[str, Any] = {"encoder": encoder.id, "ids": corpus.ids, "frames": FRAMES, "format": _FORMAT}
    parts = [[clip.start, clip.end] for clip in corpus]
    if any(part != [None, None] for part in parts):
        made_from["parts"] = parts
    return sha256_of_json(made_from | ({"files": files} if files else {}))[:12]
