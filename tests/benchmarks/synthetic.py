"""Large synthetic indexes without videos, with the embedding statistics of the demo clips and captions.

The mean of a video is drawn around the centre of one of many clusters, both from the covariance of the demo clips'
means. Its frames deviate from the mean, and have norms, like the frames of a demo clip. A text deviates from its video
like a demo caption from its clip.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import Tensor

from dits.corpora.demo import demo_corpus
from dits.corpora.embeddings import CorpusEmbeddings, load_embeddings, shipped_path
from dits.encoders.openclip import OpenClipEncoder
from dits.index.schema import OK, segment_id
from dits.index.store import VideoIndex
from dits.models.pooling import mean_pool

CLUSTERS = 4000
_SHARE_OF_CLUSTERS = 0.6  # of the variance of centres
_DEVIATIONS = 4096
_CAPTIONS_APART = 4
_ROWS_AT_ONCE = 4096
_SECONDS = 10.0


@dataclass(frozen=True)
class Geometry:
    """Frames (V, F, d) of the demo clips and some captions (T, d); `own` (T,): the row of each caption's clip."""

    frames: Tensor
    texts: Tensor
    own: Tensor

    @classmethod
    def of_the_demo(cls, encoder: OpenClipEncoder) -> "Geometry":
        corpus = demo_corpus()
        embeddings: CorpusEmbeddings = load_embeddings(shipped_path(corpus, encoder), corpus, encoder)
        queries = corpus.queries()[::_CAPTIONS_APART]
        place = {name: row for row, name in enumerate(embeddings.ids)}
        texts = encoder.encode_text([query.caption for query in queries])
        return cls(embeddings.frames, texts, torch.tensor([place[query.video_id] for query in queries]))

    @cached_property
    def means(self) -> Tensor:
        """Unit vectors (V, d)."""
        return mean_pool(self.frames)

    def centres(self, rows: int, clusters: Tensor, generator: torch.Generator) -> Tensor:
        """Centres of videos: unit vectors (rows, d). `clusters` (C, V) are standard normal."""
        middle = self.means.mean(dim=0)
        spread = (self.means - middle) / len(self.means) ** 0.5  # its Gram matrix is the covariance
        of_cluster = clusters[torch.randint(len(clusters), (rows,), generator=generator)]
        own = torch.randn(rows, clusters.shape[1], generator=generator)
        mixed = _SHARE_OF_CLUSTERS**0.5 * of_cluster + (1 - _SHARE_OF_CLUSTERS) ** 0.5 * own
        return F.normalize(middle + mixed @ spread, dim=-1)

    def deviations(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Factors (n, F, 1) and offsets (n, F, d) that turn a centre into the frames of a video."""
        norms = self.frames.norm(dim=-1, keepdim=True)
        along = (self.frames * self.means[:, None]).sum(dim=-1, keepdim=True)
        beside = (self.frames - along * self.means[:, None]) / norms
        first, second = torch.randint(len(beside), (2, _DEVIATIONS), generator=generator)
        sign = torch.randint(2, (_DEVIATIONS, 1, 1), generator=generator) * 2 - 1
        return along[first], (beside[first] + sign * beside[second]) / 2**0.5 * norms[first]

    def texts_beside(self, videos: Tensor, generator: torch.Generator) -> Tensor:
        """A text for each video mean (n, d), with the offset of a random caption from its clip's mean."""
        row = torch.randint(len(self.texts), (len(videos),), generator=generator)
        norms, own = self.texts[row].norm(dim=-1, keepdim=True), self.means[self.own[row]]
        along = (self.texts[row] * own).sum(dim=-1, keepdim=True)
        placed = along * videos + (self.texts[row] - along * own)
        return F.normalize(placed, dim=-1) * norms


def write_index(location: str, encoder: OpenClipEncoder, rows: int, seed: int = 0) -> VideoIndex:
    """Create an index of `rows` videos of one segment each, without files or thumbnails."""
    index = VideoIndex.create(location, encoder)
    schema = index._table.schema
    batches = pa.RecordBatchReader.from_batches(schema, _batches(Geometry.of_the_demo(encoder), schema, rows, seed))
    index._table.add(batches)
    return index


def _batches(geometry: Geometry, schema: pa.Schema, rows: int, seed: int) -> Iterator[pa.RecordBatch]:
    generator = torch.Generator().manual_seed(seed)
    factors, added = geometry.deviations(generator)
    clusters = torch.randn(CLUSTERS, len(geometry.means), generator=generator)
    for start in range(0, rows, _ROWS_AT_ONCE):
        count = min(_ROWS_AT_ONCE, rows - start)
        which = torch.randint(_DEVIATIONS, (count,), generator=generator)
        centres = geometry.centres(count, clusters, generator)
        yield _batch(schema, start, (factors[which] * centres[:, None] + added[which]).half())


def _batch(schema: pa.Schema, start: int, frames: Tensor) -> pa.RecordBatch:
    """Rows of frames (n, F, d), with hashes as ids."""
    count, sampled = frames.shape[:2]
    videos = [hashlib.sha256(str(start + n).encode()).hexdigest()[:20] for n in range(count)]
    times = (np.arange(sampled, dtype=np.float32) + 0.5) * _SECONDS / sampled
    means = mean_pool(frames.float()).half()
    columns = {
        "id": [segment_id(video, 0.0, _SECONDS) for video in videos],
        "path": [f"/videos/{video}.mp4".encode() for video in videos],
        "size": np.full(count, 1_000_000),
        "mtime": np.zeros(count, np.int64),
        "video": videos,
        "segmenting": ["10s"] * count,
        "segments": np.ones(count, np.int32),
        "status": [OK] * count,
        "reason": [""] * count,
        "duration": np.full(count, _SECONDS),
        "start": np.zeros(count),
        "end": np.full(count, _SECONDS),
        "times": np.tile(times, count),
        "thumbnail": [b""] * count,
        "mean": means.numpy().ravel(),
        "frames": frames.numpy().ravel(),
    }
    return pa.RecordBatch.from_arrays([_array(field, columns[field.name]) for field in schema], schema=schema)


def _array(field: pa.Field, values: object) -> pa.Array:
    if pa.types.is_fixed_size_list(field.type):
        return pa.FixedSizeListArray.from_arrays(pa.array(values), type=field.type)
    return pa.array(values, field.type)
