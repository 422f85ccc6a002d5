import pytest
import torch

from dits.common.errors import InputError
from dits.models.schedule import linear_schedule

# Computed by hand from beta = linspace(0.1, 0.99, 10) and the definitions in section 3.3 of the paper.
BETA = [0.100, 0.199, 0.298, 0.397, 0.496, 0.594, 0.693, 0.792, 0.891, 0.990]
CHI = [0.333, 0.421, 0.506, 0.613, 0.759, 0.964, 1.264, 1.741, 2.701, 9.900]
ALPHA_BAR = [0.900, 0.721, 0.506, 0.305, 0.154, 0.0625, 0.0192, 0.00398, 0.000434, 0.00000434]


def test_ten_steps_match_the_table():
    schedule = linear_schedule(10)
    assert schedule.beta.tolist() == pytest.approx(BETA, abs=6e-4)
    assert schedule.chi.tolist() == pytest.approx(CHI, abs=6e-4)
    assert schedule.alpha_bar.tolist() == pytest.approx(ALPHA_BAR, rel=1e-2)


def test_five_steps_are_spaced_anew():
    assert linear_schedule(5).chi.tolist() == pytest.approx([0.333, 0.627, 0.951, 1.646, 9.903], abs=6e-4)


@pytest.mark.parametrize(("steps", "total"), [(5, 2.63), (10, 5.35), (20, 10.8), (30, 16.3), (40, 21.7)])
def test_noise_variance_adds_up(steps, total):
    assert float((linear_schedule(steps).lam ** 2).sum()) == pytest.approx(total, rel=0.01)


def test_no_noise_at_the_last_step():
    assert linear_schedule(10).lam[0] == 0


def test_no_steps_is_an_empty_schedule():
    assert len(linear_schedule(0)) == 0


@pytest.mark.parametrize("betas", [(0.0, 0.5), (0.5, 1.0), (0.9, 0.1)])
def test_refuses_impossible_betas(betas):
    with pytest.raises(InputError, match="beta_start"):
        linear_schedule(10, *betas)


def test_refuses_negative_steps():
    with pytest.raises(InputError, match="0 or more"):
        linear_schedule(-1)


def test_is_computed_in_double_precision():
    assert linear_schedule(10).chi.dtype == torch.float64
