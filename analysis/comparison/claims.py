"""The paper's claims that a comparison can test, our controls, and their verdicts, which follow from intervals alone.

A claim says that a measure of one method is above that of another. It holds here if the 95 % interval of the difference
is above 0, and does not hold if the interval is below 0. Otherwise these data cannot tell, however large the paper's
difference is: it was measured with another encoder, so its size is not tested.
"""

from dataclasses import dataclass

from analysis.comparison.statistics import Estimate

HOLDS, FAILS, UNKNOWN = "holds here", "does not hold", "cannot be told"

MEASURES = ("R@1", "cosine", "nearer", "closed", "query")
"""What a claim compares: R@1, text to video; the mean cosine of aligned texts and their videos; the share of captions
that their v_0 is nearer to their video than t, against one half; the share of the distance of the centroids that v_0
closes, against 0; the time of a query. The second method is left out of the two that compare with a number."""


@dataclass(frozen=True)
class Claim:
    """A claim that a measure of `first` is above that of `second`.

    Attributes:
        text: the claim in a few words.
        source: the paper's table or figure, or "ours" for a control that the paper does not have.
        paper: the paper's numbers of the two, as text; empty if it has none.
        first, second: names of methods.
        measure: one of MEASURES.
        modes: the mode of each of the two; None is the mode of the table.
    """

    text: str
    source: str
    paper: str
    first: str
    second: str
    measure: str = "R@1"
    modes: tuple[str, str] | None = None


CLAIMS = (
    Claim("DITS ranks better than X-Pool", "Table 1", "51.9 and 46.9", "dits", "xpool"),
    Claim("DITS ranks better than T-MASS", "Table 1", "51.9 and 50.2", "dits", "tmass"),
    Claim("T-MASS ranks better than X-Pool", "Table 1", "50.2 and 46.9", "tmass", "xpool"),
    Claim("X-Pool ranks better than a fixed prior of variance 1.0", "Table 4", "46.9 and 28.0", "xpool", "prior-1.0"),
    Claim("X-Pool ranks better than a fixed prior of variance 0.1", "Table 4", "46.9 and 45.1", "xpool", "prior-0.1"),
    Claim("X-Pool ranks better than diffusion, fine-tuned", "Table 4", "46.9 and 46.5", "xpool", "diffusion"),
    Claim("DITS ranks better than diffusion, fine-tuned", "Table 4", "51.9 and 46.5", "dits", "diffusion"),
    Claim("One step (T' = 1) ranks better than X-Pool", "Table 5a", "49.2 and 46.9", "dits-steps-1", "xpool"),
    Claim("T' = 10 ranks better than T' = 1", "Table 5a", "51.9 and 49.2", "dits", "dits-steps-1"),
    Claim("T' = 10 ranks better than T' = 5", "Table 5a", "51.9 and 49.6", "dits", "dits-steps-5"),
    Claim("T' = 10 ranks better than T' = 20", "Table 5a", "51.9 and 47.0", "dits", "dits-steps-20"),
    Claim(
        "DITS trained jointly ranks better than with the encoder fixed", "Table 5b", "51.9 and 39.2", "dits", "dits",
        modes=("joint", "frozen"),
    ),
    Claim(
        "Joint training brings pairs nearer than a fixed encoder (cosine)", "Table 9", "0.168 and 0.122", "dits",
        "dits", "cosine", ("joint", "frozen"),
    ),
    Claim("DITS moves most texts nearer to their videos (share)", "Figure 5", "mostly", "dits", "", "nearer"),
    Claim("DITS closes the distance of the centroids (share)", "its aim", "", "dits", "", "closed"),
    Claim("T-MASS takes longer than DITS (ms a query)", "Table 11", "76.4 s and 70.2 s", "tmass", "dits", "query"),
    Claim("DITS takes longer than X-Pool (ms a query)", "Table 11", "70.2 s and 65.4 s", "dits", "xpool", "query"),
)  # fmt: skip
"""R@1 of the paper: MSR-VTT 1k-A, CLIP ViT-B/32 tuned from video, text to video, one seed."""

CONTROLS = (
    Claim("X-Pool ranks better than mean pooling", "ours", "", "xpool", "mean"),
    Claim("DITS ranks better than mean pooling", "ours", "", "dits", "mean"),
    Claim("The paper's noise helps DITS", "ours", "", "dits", "dits-quiet"),
    Claim("DITS without noise ranks better than X-Pool", "ours", "", "dits-quiet", "xpool"),
    Claim("The sampler's steps add to a residual MLP", "ours", "", "dits-quiet", "mlp"),
    Claim("Without noise, T' = 10 ranks better than T' = 1", "ours", "", "dits-quiet", "dits-steps-1"),
    Claim("Without noise, T' = 10 ranks better than T' = 5", "ours", "", "dits-quiet", "dits-quiet-steps-5"),
    Claim("Without noise, T' = 10 ranks better than T' = 20", "ours", "", "dits-quiet", "dits-quiet-steps-20"),
    Claim("The alignment term improves the ranks of DITS without noise", "ours", "", "dits-aligned", "dits-quiet"),
    Claim(
        "DITS with the alignment term closes the distance of the centroids (share)",
        "ours",
        "",
        "dits-aligned",
        "",
        "closed",
    ),
    Claim("DITS ranks better than the mean shift", "ours", "", "dits", "shift"),
)
"""What the paper does not compare, but would need to for its explanation."""

NOT_TESTED = (
    "the condition of the network and the direction of the gap (Table 6; `python -m dits ablate` trains both)",
    "T' of 30 and 40 (Table 5a), and the losses of the diffusion model (Table 7)",
    "other benchmarks (Tables 1 to 3), encoders that are tuned from video, and what their training costs (Table 10)",
)
"""Claims of the paper that a comparison does not test."""


def verdict(estimate: Estimate) -> str:
    """What an interval of the difference says of the claim that the first is above the second.

    Limits that are not numbers, as of a single seed, tell nothing; an interval that ends at 0 does not exclude 0.
    """
    if estimate.low > 0:
        return HOLDS
    if estimate.high < 0:
        return FAILS
    return UNKNOWN
