"""Verdicts on claims: against numbers made by hand."""

import math

import pytest

from analysis.comparison.claims import CLAIMS, CONTROLS, FAILS, HOLDS, MEASURES, UNKNOWN, verdict
from analysis.comparison.methods import ENTRIES, MODES
from analysis.comparison.statistics import Estimate


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.1, 4.0, HOLDS),
        (-4.0, -0.1, FAILS),
        (-0.1, 4.0, UNKNOWN),
        (-4.0, 0.1, UNKNOWN),
        (0.0, 4.0, UNKNOWN),  # an interval that ends at 0 holds it
        (-4.0, 0.0, UNKNOWN),
        (0.0, 0.0, UNKNOWN),
        (-math.inf, math.inf, UNKNOWN),  # of one seed
    ],
)
def test_the_interval_alone_decides(low, high, expected):
    assert verdict(Estimate((low + high) / 2, low, high)) == expected


def test_every_claim_compares_methods_that_are_there():
    for claim in (*CLAIMS, *CONTROLS):
        assert claim.first in ENTRIES, claim
        assert claim.second in ENTRIES or claim.measure in ("nearer", "closed"), claim
        assert claim.measure in MEASURES
        assert set(claim.modes or ()) <= set(MODES)


def test_the_papers_differences_have_the_sign_of_its_claims():
    """Where both numbers are R@1 or cosines, the first is the larger one."""
    for claim in CLAIMS:
        numbers = [word.strip("s") for word in claim.paper.split(" and ")]
        if claim.measure in ("R@1", "cosine"):
            assert float(numbers[0]) > float(numbers[1]), claim
