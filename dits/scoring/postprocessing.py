"""Named post-processing of scores: dual softmax and querybank normalisation. Never a default.

Both change scores so that videos which are near to everything (hubs) come up less often. Queries are in rows and
candidates in columns, in either direction of retrieval; only the order within a row has a meaning afterwards.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

POST_PROCESSING = {
    "dsl": "dual softmax: every score depends on all test queries at once, which a search for one sentence cannot have",
    "qbnorm": "querybank normalisation (dynamic inverted softmax) with the training split as the bank",
}
"""The names, and what to say wherever a result used one."""

DEFAULT_TEMPERATURES = {"dsl": 100.0, "qbnorm": 20.0}
"""What scores are multiplied by before the exponential: T-MASS's code, and the authors' code of QB-Norm."""


def dual_softmax(scores: np.ndarray, temperature: float = DEFAULT_TEMPERATURES["dsl"]) -> np.ndarray:
    """Scores (queries, candidates) times their softmax over the queries, of scores times the temperature.

    The formula of T-MASS's code, scores * softmax(100 * scores, axis 0), after Cheng et al. 2021 ("Improving
    Video-Text Retrieval by Multi-Stream Corpus Alignment and Dual Softmax Loss"). It uses the test queries jointly: a
    query's ranking depends on which other queries are asked. A negative score is raised, not lowered, by a small
    softmax; that is in the formula. The result is float64, in which factors down to exp(-700) are kept apart.
    """
    from scipy.special import softmax

    exact = scores.astype(np.float64)
    return exact * softmax(temperature * exact, axis=0)


@dataclass(frozen=True)
class QueryBank:
    """What a bank of queries says about the C candidates.

    Attributes:
        log_mass: (C,) log of the sum over the bank of exp(temperature * score): how near a candidate is to everything.
        activated: (C,) whether the candidate comes first for any query of the bank.
        temperature: what the scores were multiplied by.
    """

    log_mass: np.ndarray
    activated: np.ndarray
    temperature: float


def query_bank(blocks: Iterable[np.ndarray], temperature: float = DEFAULT_TEMPERATURES["qbnorm"]) -> QueryBank:
    """The bank of all queries whose scores (queries, candidates) come in blocks of any size, one or more."""
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

    A query whose first candidate is activated, that is, comes first for some query of the bank, has its scores s_c
    replaced by exp(b * s_c) / sum over the bank of exp(b * s_bank,c), b the temperature; any other query keeps its
    scores. Here the logarithm of that fraction stands for it: the same order, without overflow. The bank is of other
    queries than the ones asked, so each query is ranked on its own.
    """
    exact = scores.astype(np.float64)
    normalised = bank.temperature * exact - bank.log_mass
    return np.where(bank.activated[exact.argmax(axis=1)][:, None], normalised, exact)
