"""What is compared: the same budget for every method, and names that are refused."""

import pytest

from analysis.comparison.methods import ENTRIES, budget_of, entries_named, stages_of
from dits.common.errors import InputError
from dits.models.retrieval import METHODS
from dits.training.config import TrainingConfig


@pytest.mark.parametrize(("epoch_captions", "expected"), [(9600, 9600), (0, 63_000)])
def test_every_method_sees_the_same_number_of_captions(epoch_captions, expected):
    training = TrainingConfig(epochs=4, epoch_captions=epoch_captions, batch_size=96)
    for entry in entries_named(list(ENTRIES), 2.0):
        stages = stages_of(entry.variant)
        budgets = [budget_of(stage, len(stages), training, 63_000, seed=7) for stage in stages]
        assert {budget.epochs for budget in budgets} == {4}, entry.name
        assert sum(budget.epoch_captions or 63_000 for budget in budgets) == expected, entry.name
        assert {(b.batch_size, b.learning_rate, b.projection_rate, b.seed) for b in budgets} == {(96, 1e-5, 1e-4, 7)}


def test_only_the_row_with_the_alignment_term_has_its_weight():
    training = TrainingConfig()
    weights = {
        entry.name: budget_of(stages_of(entry.variant)[-1], 1, training, 100, 1).alignment_weight
        for entry in entries_named(list(ENTRIES), 0.25)
    }
    assert {name: weight for name, weight in weights.items() if weight} == {"dits-aligned": 0.25}


def test_all_methods_of_the_registry_are_compared():
    assert {stage.method for entry in ENTRIES.values() for stage in stages_of(entry.variant)} == set(METHODS)


def test_the_references_are_always_there():
    assert [entry.name for entry in entries_named(["dits"], 1.0)] == ["mean", "xpool", "dits"]
    for names in (["magic"], []):
        with pytest.raises(InputError, match="There is no method"):
            entries_named(names, 1.0)
