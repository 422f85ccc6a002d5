"""The best of many videos for each text, from scores that come a block of videos at a time."""

from collections.abc import Iterable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

_LAST_ROW = 2**32 - 1


@dataclass(frozen=True)
class TopVideos:
    """The k best of V videos for each of T texts, and how all V scores of a text are spread.

    Attributes:
        scores: (T, k) best first.
        rows: (T, k) the videos' places in their array; of equal scores the lower row comes first.
        mean: (T,) of all V scores.
        deviation: (T,) their standard deviation (of a sample: over V - 1); 0 where there is one video.
        lowest: (T,)
        highest: (T,)
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


def top_of(blocks: Iterable[Tensor], k: int) -> TopVideos:
    """The k best of all videos (all of them, where there are fewer), from blocks (T, n) of scores in the videos' order.

    What is held besides one block grows with k, not with the number of videos.
    """
    count = 0
    for block in blocks:
        values = block.double()
        sums = torch.stack([values.sum(dim=1), values.square().sum(dim=1)])
        ends = torch.stack([-block.amin(dim=1), block.amax(dim=1)])
        keys = _keys(block, count)
        if count:
            sums, ends, keys = sums + seen_sums, torch.maximum(ends, seen_ends), torch.cat([seen_keys, keys], dim=1)
        seen_sums, seen_ends, seen_keys = sums, ends, keys.topk(min(k, keys.shape[1])).values
        count += block.shape[1]
    mean = seen_sums[0] / count
    variance = (seen_sums[1] - count * mean.square()).clamp_min(0) / max(count - 1, 1)
    scores, rows = _scores_and_rows(seen_keys)
    return TopVideos(scores, rows, mean.float(), variance.sqrt().float(), -seen_ends[0], seen_ends[1])


def _keys(scores: Tensor, first_row: int) -> Tensor:
    """One integer per score (T, n), greater for the greater score, and of equal ones for the lower row.

    The bits of a positive float32 grow with it, those of a negative one the other way round.
    """
    bits = (scores + 0.0).view(torch.int32).long()  # + 0.0: -0 and 0 are one score
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    rows = torch.arange(first_row, first_row + scores.shape[1], device=scores.device)
    return (ordered << 32) | (_LAST_ROW - rows)


def _scores_and_rows(keys: Tensor) -> tuple[Tensor, Tensor]:
    ordered = keys >> 32
    bits = torch.where(ordered < 0, ordered ^ 0x7FFFFFFF, ordered)
    return bits.int().view(torch.float32), _LAST_ROW - (keys & _LAST_ROW)
