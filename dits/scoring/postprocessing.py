"""Post-processing of scores: dual softmax and querybank normalisation. Neither is a default.

Both rank hubs lower: videos that are near to every text. In both directions of retrieval, queries are in rows and
candidates in columns. Only the order within a row has a meaning afterwards.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

POST_PROCESSING = {
    "dsl": "dual softmax: every score depends on all test queries at once, which a search for one sentence cannot have",
    "qbnorm": "querybank normalisation (dynamic inverted softmax) with the training split as the bank",
}
"""The names, each with the note to print next to its results."""

DEFAULT_TEMPERATURES = {"dsl": 100.0, "qbnorm": 20.0}
"""Factors of the scores before the exponential, from the code of T-MASS and of the authors of QB-Norm."""


def dual_softmax(scores: np.ndarray, temperature: float = DEFAULT_TEMPERATURES["dsl"]) -> np.ndarray:
    """Scores (queries, candidates) times their softmax over the queries, of scores times the temperature.

    The formula of T-MASS's code, scores * softmax(100 * scores, axis 0), after Cheng et al. 2021 ("Improving
    Video-Text Retrieval by Multi-Stream Corpus Alignment and Dual Softmax Loss"). The ranking of a query depends on the
    other test queries. In this formula a small softmax raises a negative score instead of lowering it. The result is
    float64, in which factors down to exp(-700) are distinct.
    """
    from scipy.special import softmax

    exact = scores.astype(np.float64)
    return exact * softmax(temperature * exact, axis=0)


@dataclass(frozen=True)
class QueryBank:
    """Statistics of a bank of queries for C candidates.

    Attributes:
        log_mass: (C,) log of the sum over the bank of exp(temperature * score): high for hubs.
        activated: (C,) whether the candidate is ranked first for any query of the bank.
        temperature: factor of the scores.
    """

    log_mass: np.ndarray
    activated: np.ndarray
    temperature: float


def query_bank(blocks: Iterable[np.ndarray], temperature: float = DEFAULT_TEMPERATURES["qbnorm"]) -> QueryBank:
    """Compute the bank of all queries from one or more blocks of scores (queries, candidates)."""
    from scipy.special import logsumexp

    masses, firsts = [], []
    for block in blocks:
        masses.append(logsumexp(temperature * block.astype(np.float64), axis=0))
        firsts.append(block.argmax(axis=1))
    log_mass = logsumexp(np.stack(masses), axis=0)
    activated = np.isin(np.arange(len(log_mass)), np.concatenate(firsts))
    return QueryBank(log_mass, activated, temperature)


def querybank_norm(scores: np.ndarray, bank: QueryBank) -> np.ndarray:
    """Scores (queries, candidates) after QB-Norm with the dynamic inverted softmax (Bogolin et al., CVPR 2022).

    If the first candidate of a query is activated, the scores s_c of the query are replaced by
    exp(b * s_c) / sum over the bank of exp(b * s_bank,c), with the temperature b. Other queries keep their scores. This
    function computes the logarithm of that fraction: the same order, without overflow. The bank does not contain the
    test queries, so the ranking of a query does not depend on them.
    """
    exact = scores.astype(np.float64)
    normalised = bank.temperature * exact - bank.log_mass
    return np.where(bank.activated[exact.argmax(axis=1)][:, None], normalised, exact)
