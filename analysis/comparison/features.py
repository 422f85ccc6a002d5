"""The corpus of a comparison as cached features: computed once, then read by every process that trains.

The features are those of the encoder's towers before their projections, if it has such. Both modes use the same ones:
the frozen encoder's embeddings are their projections, which is also where joint training begins. The encoder's own
embeddings are used for other encoders, which cannot be trained jointly.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dits.common.errors import EncoderError
from dits.common.files import atomic_path, cache_root, sha256_of_json
from dits.corpora.corpus import Corpus, Progress
from dits.corpora.embeddings import cached_path, corpus_embeddings, embeddings_name, shipped_path
from dits.models.projections import Projections, TowerEncoder, without_projections
from dits.training.trainer import PairData

_CAPTIONS_PER_PART = 4096


@dataclass(frozen=True)
class Part:
    """Captions and their videos, as numbers: of N captions among all, and of V videos among all.

    Attributes:
        captions: the caption of each query (N,).
        video_of: the position in `videos` of each query's video (N,).
        videos: the videos (V,).
        title: what the queries are, for tables.
    """

    captions: np.ndarray
    video_of: np.ndarray
    videos: np.ndarray
    title: str = ""


@dataclass(frozen=True)
class CorpusFeatures:
    """Where the cached features of a corpus are, and which captions and videos make its splits and query sets.

    It holds no text and no features, so it is quickly sent to other processes.

    Attributes:
        key: a checksum of encoder, corpus and captions, which names results.
        encoder: the id of the encoder.
        temperature: the encoder's own.
        frames: the file with the features of the frames (V, F, d_i), as the cache of embeddings has it.
        texts: the files with the features of the captions (N, d_t), in order.
        train: the split to train on.
        validation: the split that the epoch is chosen on.
        queries: the query sets of the test split by name, on the same videos.
        projections: the weights of the encoder's projections; empty if the features are its embeddings.
    """

    key: str
    encoder: str
    temperature: float
    frames: Path
    texts: tuple[Path, ...]
    train: Part
    validation: Part
    queries: dict[str, Part]
    projections: dict[str, np.ndarray]

    @property
    def frame_count(self) -> int:
        """The number of frames of a video, of which short ones repeat some."""
        with safe_open(self.frames, framework="np") as file:
            return int(file.get_slice("frames").get_shape()[1])

    def read(self) -> "Features":
        """The features themselves, in memory."""
        texts = torch.cat([load_file(path)["features"] for path in self.texts]).float()
        return Features(texts, load_file(self.frames)["frames"].float(), _projections_from(self.projections))


class Features:
    """The features of a corpus in memory, and the encoder's projections, if it has such."""

    def __init__(self, texts: Tensor, frames: Tensor, projections: Projections | None) -> None:
        """`texts` (N, d_t) and `frames` (V, F, d_i) are those of all captions and videos of the corpus."""
        self._texts, self._frames = texts, frames
        self.projections = projections

    def part(self, part: Part, mode: str) -> PairData:
        """Captions and videos as training and evaluation take them: embeddings, or features of the towers if joint.

        Captions are named by their numbers, which is enough to know equal ones.
        """
        texts, frames = (self._texts, self._frames) if mode == "joint" else self._embeddings
        rows = torch.from_numpy(part.captions)
        captions = tuple(map(str, part.captions.tolist()))
        return PairData(texts[rows], frames[torch.from_numpy(part.videos)], part.video_of, captions)

    @cached_property
    @torch.no_grad()
    def _embeddings(self) -> tuple[Tensor, Tensor]:
        """The frozen encoder's embeddings of all captions and frames."""
        if self.projections is None:
            return self._texts, self._frames
        return self.projections.text(self._texts), self.projections.frames(self._frames)


def corpus_features(
    corpus: Corpus,
    encoder: Any,
    more_captions: dict[str, list[str]],
    progress: Callable[[str, int, int], None],
    notice: Callable[[str], None],
) -> CorpusFeatures:
    """The features of the train, validation and test splits: cached, or else computed and cached.

    The test split has two query sets on the same videos: "one" has a caption for each video, "all" has all that are
    known. If these are the same, there is one set.

    Args:
        encoder: an `OpenClipEncoder`.
        more_captions: further known captions of test videos, by id (see
            `dits.corpora.datasets.msrvtt_captions.all_captions`); they replace those of the corpus in "all".
        progress: called with a description of the task, the number of items that are done, and the total.
        notice: called with a sentence if a file of embeddings is damaged and is computed again.

    Raises:
        InputError: a split is empty.
        CorpusError: a video file is missing.
        VideoError: a video cannot be decoded.
        StorageError: the cache folder cannot be written.
    """
    train, validation, test = (corpus.split(name) for name in ("train", "validation", "test"))
    towers, projections = _towers(encoder)
    sentences = {clip.id: list(clip.captions) for clip in corpus}
    known = {clip.id: more_captions.get(clip.id) or sentences[clip.id] for clip in test}
    captions = _in_order([text for group in (sentences, known) for texts in group.values() for text in texts])
    numbering = _Numbering(captions, corpus.ids)
    one = {video: texts[:1] for video, texts in sentences.items() if video in known}
    queries = {"one": numbering.part(test.ids, one, "one caption a video")}
    if any(len(texts) > 1 for texts in known.values()):
        queries["all"] = numbering.part(test.ids, known, "all captions")
    corpus_embeddings(corpus, towers, lambda done, total: progress("Embedding the clips", done, total), notice)
    shipped = shipped_path(corpus, towers)
    return CorpusFeatures(
        key=sha256_of_json([towers.id, embeddings_name(corpus, towers), _assignment(corpus), known])[:12],
        encoder=encoder.id,
        temperature=encoder.temperature,
        frames=shipped if shipped.is_file() else cached_path(corpus, towers),
        texts=_text_files(captions, towers, lambda done, total: progress("Embedding the captions", done, total)),
        train=numbering.part(train.ids, sentences, "the training split"),
        validation=numbering.part(validation.ids, sentences, "the validation split"),
        queries=queries,
        projections={k: v.numpy() for k, v in projections.state_dict().items()} if projections else {},
    )


class _Numbering:
    """Numbers captions and videos of a corpus."""

    def __init__(self, captions: Sequence[str], videos: Sequence[str]) -> None:
        self._caption = {caption: number for number, caption in enumerate(captions)}
        self._video = {video: number for number, video in enumerate(videos)}

    def part(self, videos: Sequence[str], captions: dict[str, list[str]], title: str) -> Part:
        """The captions of some videos."""
        rows = [(self._caption[text], position) for position, video in enumerate(videos) for text in captions[video]]
        numbers, video_of = np.array(rows).T
        return Part(numbers, video_of, np.array([self._video[video] for video in videos]), title)


def _towers(encoder: Any) -> tuple[Any, Projections | None]:
    """The encoder without its projections, and these; the encoder itself and None if it has none to train."""
    try:
        return without_projections(encoder), Projections.of(encoder)
    except EncoderError:
        return encoder, None


def _projections_from(weights: dict[str, np.ndarray]) -> Projections | None:
    if not weights:
        return None
    shapes = {name: weights[f"{name}.weight"].shape for name in ("text", "frames")}
    layers = [nn.Linear(d_in, d, bias=f"{name}.bias" in weights) for name, (d, d_in) in shapes.items()]
    projections = Projections(*layers)
    projections.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    return projections


def _assignment(corpus: Corpus) -> list[list[str]]:
    """The clips, their splits and captions."""
    return [[clip.id, clip.split, *clip.captions] for clip in corpus]


def _in_order(captions: Sequence[str]) -> list[str]:
    """The distinct captions, those of about the same length together, which are embedded faster."""
    return sorted(set(captions), key=lambda caption: (len(caption), caption))


def _text_files(captions: Sequence[str], encoder: TowerEncoder, progress: Progress) -> tuple[Path, ...]:
    """The files with the features of the captions, a part each, so that an interruption loses at most one part."""
    paths = []
    for start in range(0, len(captions), _CAPTIONS_PER_PART):
        part = captions[start : start + _CAPTIONS_PER_PART]
        key = sha256_of_json({"encoder": encoder.id, "captions": part, "v": 1})[:12]
        path = cache_root() / "caption-features" / f"{key}.safetensors"
        if not path.is_file():
            features = encoder.encode_text(part).half()
            with atomic_path(path) as temporary:
                save_file({"features": features.contiguous()}, temporary)
        progress(start + len(part), len(captions))
        paths.append(path)
    return tuple(paths)
