"""Top-k search over many videos, from scores that are computed one block of videos at a time."""

from collections.abc import Iterable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

_LAST_ROW = 2**32 - 1


@dataclass(frozen=True)
class TopVideos:
    """The k best of V videos for each of T texts, and statistics of all V scores of a text.

    Attributes:
        scores: (T, k) best first.
        rows: (T, k) rows of the videos; of equal scores the lower row comes first.
        mean: (T,) mean of all V scores.
        deviation: (T,) their sample standard deviation (over V - 1); 0 for one video.
        lowest, highest: (T,) the lowest and the highest of all V scores.
    """

    scores: Tensor
    rows: Tensor
    mean: Tensor
    deviation: Tensor
    lowest: Tensor
    highest: Tensor

    def cpu(self) -> "TopVideos":
        """The same on the CPU."""
        return TopVideos(*(getattr(self, field.name).cpu() for field in fields(self)))


def top_k(blocks: Iterable[Tensor], k: int) -> TopVideos:
    """The k best of all videos, or all if there are fewer, from blocks (T, n) of scores in the order of the videos.

    The memory grows with k and the size of a block, not with the number of videos.
    """
    count = 0
    sums, ends, best = [], [], None
    for block in blocks:
        values = block.double()
        sums.append(torch.stack([values.sum(dim=1), values.square().sum(dim=1)]))
        ends.append(torch.stack([block.amin(dim=1), block.amax(dim=1)]))
        keys = _keys(block, count)
        keys = keys if best is None else torch.cat([best, keys], dim=1)
        best = keys.topk(min(k, keys.shape[1])).values
        count += block.shape[1]
    assert best is not None
    total, squares = torch.stack(sums).sum(dim=0)
    lowest, highest = torch.stack(ends).unbind(dim=1)
    mean = total / count
    deviation = ((squares - count * mean.square()).clamp_min(0) / max(count - 1, 1)).sqrt()
    scores, rows = _scores_and_rows(best)
    return TopVideos(scores, rows, mean.float(), deviation.float(), lowest.amin(dim=0), highest.amax(dim=0))


def ranks_at(scores: Tensor, rows: Tensor) -> Tensor:
    """The ranks (n,), from 1, of a few rows among all scores (V,) in the order of `top_k`, counted without a sort."""
    before = [(scores > scores[row]).sum() + (scores[:row] == scores[row]).sum() for row in rows.tolist()]
    return torch.stack(before) + 1


def _keys(scores: Tensor, first_row: int) -> Tensor:
    """One sort key (integer) per score (T, n): greater for a greater score, and for the lower row of equal scores.

    As integers, the bits of positive float32 numbers are in the order of the numbers, those of negative ones reversed.
    """
    bits = (scores + 0.0).view(torch.int32).long()  # + 0.0 turns -0 into 0
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    rows = torch.arange(first_row, first_row + scores.shape[1], device=scores.device)
    return (ordered << 32) | (_LAST_ROW - rows)


def _scores_and_rows(keys: Tensor) -> tuple[Tensor, Tensor]:
    ordered = keys >> 32
    bits = torch.where(ordered < 0, ordered ^ 0x7FFFFFFF, ordered)
    return bits.int().view(torch.float32), _LAST_ROW - (keys & _LAST_ROW)
