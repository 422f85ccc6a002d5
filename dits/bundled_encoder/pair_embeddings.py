"""Gathered pairs as training data for pooling and sampler: a still is a clip of one frame."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dits.bundled_encoder.data import TowerRows
from dits.bundled_encoder.pairs.near_duplicates import to_rgb
from dits.bundled_encoder.pairs.shards import Pair, open_picture, pictures_digest
from dits.bundled_encoder.pictures import cached_tensor
from dits.common.files import cache_root, sha256_of_json
from dits.corpora.corpus import FRAMES, Progress
from dits.encoders.openclip import Encoder, OpenClipEncoder
from dits.encoders.towers import upper_stages
from dits.training.trainer import PairData

_BATCH = 24


def embed_pairs(pairs: Sequence[Pair], encoder: Encoder, progress: Progress | None = None) -> PairData:
    """Embeds pairs as texts (N, d) and frames (V, FRAMES, d); the embeddings of pictures are cached.

    A still is repeated FRAMES times, and a clip with fewer frames repeats them evenly. Attention and mean are then
    those of the pictures themselves.
    """
    return _pair_data(pairs, encoder, _picture_embeddings(pairs, encoder, progress))


def embed_kept(pairs: Sequence[Pair], encoder: OpenClipEncoder, rows: TowerRows, numbers: np.ndarray) -> PairData:
    """`embed_pairs` with kept views: the views `numbers` of `rows` are the plain ones of the pairs' pictures, in order.

    The stages of the encoder's image tower below the kept maps are the pretrained ones.
    """
    visual = encoder.module.visual
    embeddings = []
    for block in np.array_split(numbers, max(1, len(numbers) // _BATCH)):
        if rows.upper:
            with torch.inference_mode():
                features = upper_stages(visual.trunk, rows.select_maps(block).to(encoder.device), rows.upper)
        else:
            features = rows.features[torch.from_numpy(block)].float().to(encoder.device)
        with torch.inference_mode():
            embeddings.append(visual.head(features).float().cpu())
    return _pair_data(pairs, encoder, torch.cat(embeddings))


def concatenate(first: PairData, second: PairData) -> PairData:
    """One PairData with both; the second's videos are numbered after the first's."""
    return PairData(
        torch.cat([first.texts, second.texts]),
        torch.cat([first.frames, second.frames]),
        np.concatenate([first.video_of, second.video_of + len(first.frames)]),
        first.captions + second.captions,
    )


def _pair_data(pairs: Sequence[Pair], encoder: Encoder, pictures: Tensor) -> PairData:
    counts = np.array([len(pair.pictures) for pair in pairs])
    starts = np.cumsum(counts) - counts
    frames = np.floor((np.arange(FRAMES) + 0.5) / FRAMES * counts[:, None]).astype(int) + starts[:, None]
    captions = tuple(text for pair in pairs for text in pair.texts)
    texts = _text_embeddings(captions, encoder)
    video_of = np.repeat(np.arange(len(pairs)), [len(pair.texts) for pair in pairs])
    return PairData(texts, pictures[torch.from_numpy(frames)], video_of, captions)


def _text_embeddings(texts: Sequence[str], encoder: Encoder) -> Tensor:
    """Embeddings (N, d) of texts, cached; texts of about the same length share a batch."""

    def make() -> Tensor:
        order = torch.tensor(sorted(range(len(texts)), key=lambda number: len(texts[number])))
        return encoder.encode_text([texts[number] for number in order.tolist()])[order.argsort()]

    key = sha256_of_json({"encoder": encoder.id, "texts": list(texts)})
    return cached_tensor(cache_root() / "pair-embeddings" / f"texts-{key[:12]}.safetensors", "embeddings", make)


def _picture_embeddings(pairs: Sequence[Pair], encoder: Encoder, progress: Progress | None) -> Tensor:
    """Embeddings (N, d) of all pictures, in order."""
    pictures = [data for pair in pairs for data in pair.pictures]
    key = sha256_of_json({"encoder": encoder.id, "pictures": pictures_digest(pictures), "v": 1})
    path = cache_root() / "pair-embeddings" / f"{key[:12]}.safetensors"
    return cached_tensor(path, "embeddings", lambda: _embed(pictures, encoder, progress))


def _embed(pictures: Sequence[bytes], encoder: Encoder, progress: Progress | None) -> Tensor:
    rows = []
    for start in range(0, len(pictures), _BATCH):
        images = [np.asarray(to_rgb(open_picture(data, "a picture"))) for data in pictures[start : start + _BATCH]]
        frames = torch.cat([encoder.preprocess(image[None]) for image in images])
        rows.append(encoder.encode_frames(frames[None])[0])
        if progress:
            progress(min(start + _BATCH, len(pictures)), len(pictures))
    return torch.cat(rows)
