"""Gathered pairs as training data for pooling and sampler: a still is a clip of one frame."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dits.bundled_encoder.pairs.near_duplicates import flat
from dits.bundled_encoder.pairs.shards import Pair, open_picture, pictures_digest
from dits.common.files import atomic_path, cache_root, sha256_of_json
from dits.corpora.corpus import FRAMES
from dits.encoders.openclip import Encoder
from dits.training.trainer import PairData

_AT_ONCE = 24

Progress = Callable[[int, int], None]


def pair_data_of(pairs: Sequence[Pair], encoder: Encoder, progress: Progress | None = None) -> PairData:
    """Texts (N, d) and frames (V, FRAMES, d) of pairs, embedded; pictures' embeddings are kept in the cache folder.

    A still stands FRAMES times, a clip of fewer frames repeats them evenly: attention and mean are those of the
    pictures themselves.
    """
    pictures = _picture_embeddings(pairs, encoder, progress)
    counts = np.array([len(pair.pictures) for pair in pairs])
    starts = np.cumsum(counts) - counts
    shown = np.floor((np.arange(FRAMES) + 0.5) / FRAMES * counts[:, None]).astype(int) + starts[:, None]
    captions = tuple(text for pair in pairs for text in pair.texts)
    texts = encoder.encode_text(captions)
    video_of = np.repeat(np.arange(len(pairs)), [len(pair.texts) for pair in pairs])
    return PairData(texts, pictures[torch.from_numpy(shown)], video_of, captions)


def joined(first: PairData, second: PairData) -> PairData:
    """Both data as one, the second's videos numbered after the first's."""
    return PairData(
        torch.cat([first.texts, second.texts]),
        torch.cat([first.frames, second.frames]),
        np.concatenate([first.video_of, second.video_of + len(first.frames)]),
        first.captions + second.captions,
    )


def _picture_embeddings(pairs: Sequence[Pair], encoder: Encoder, progress: Progress | None) -> Tensor:
    """Embeddings (N, d) of all pictures, in order."""
    pictures = [data for pair in pairs for data in pair.pictures]
    key = sha256_of_json({"encoder": encoder.id, "pictures": pictures_digest(pictures), "v": 1})
    path = cache_root() / "pair-embeddings" / f"{key[:12]}.safetensors"
    if not path.is_file():
        embeddings = _embed(pictures, encoder, progress)
        with atomic_path(path) as temporary:
            save_file({"embeddings": embeddings}, temporary)
    return load_file(path)["embeddings"]


def _embed(pictures: Sequence[bytes], encoder: Encoder, progress: Progress | None) -> Tensor:
    rows = []
    for start in range(0, len(pictures), _AT_ONCE):
        images = [np.asarray(flat(open_picture(data, "a picture"))) for data in pictures[start : start + _AT_ONCE]]
        frames = torch.cat([encoder.preprocess(image[None]) for image in images])
        rows.append(encoder.encode_frames(frames[None])[0])
        if progress:
            progress(min(start + _AT_ONCE, len(pictures)), len(pictures))
    return torch.cat(rows).contiguous()
