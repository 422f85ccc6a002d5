"""The example queries rank as described."""

from collections import Counter

import pytest

from ui.components.examples import GAINS, LOSES, read_examples

KINDS = read_examples()
TELLING = [example for kind in (GAINS, LOSES) for example in KINDS[kind]]
EXAMPLES = [example for kind, examples in KINDS.items() if kind not in (GAINS, LOSES) for example in examples]


def test_the_right_clip_comes_first_for_every_example(engine):
    """With the default method of the app."""
    found = {example.query: engine.search(example.query, "dits", 1).hits[0].clip.id for example in EXAMPLES}
    assert found == {example.query: example.clip for example in EXAMPLES}


@pytest.mark.parametrize("kind", [GAINS, LOSES])
def test_methods_differ_on_the_target_of_a_telling_example(engine, kind):
    for example in KINDS[kind]:
        ranks = {name: rank_of(engine, example, name) for name in engine.methods}
        others = [rank for name, rank in ranks.items() if name != "dits"]
        sign = 1 if kind == GAINS else -1  # a gain is a lower number
        assert all(sign * ranks["dits"] <= sign * other for other in others), (example, ranks)
        assert any(sign * ranks["dits"] < sign * other for other in others), (example, ranks)


def test_targets_of_telling_examples_are_from_the_validation_split(demo):
    """The weights were selected on it; the clips of the test split are for measurements."""
    splits = {clip.id: clip.split for clip in demo}
    assert {splits[example.clip] for example in TELLING} == {"validation"}


def test_every_kind_has_at_least_three():
    counts = Counter(kind for kind, examples in KINDS.items() for _ in examples)
    kinds = {"Moving clips", "People", "Animals", "Vehicles", "Food", "Landscapes", "Drawings", "3-D renders"}
    assert set(counts) == kinds | {GAINS, LOSES}
    assert min(counts.values()) >= 3


def test_no_example_is_a_caption_word_for_word(demo):
    captions = {caption for clip in demo for caption in clip.captions}
    assert not captions & {example.query for example in (*TELLING, *EXAMPLES)}


def rank_of(engine, example, method):
    """The rank of an example's target clip under a method, by the scores of all clips."""
    texts = engine.encoder.encode_text([example.query])
    scores = engine.methods[method].gallery.scores(texts)[0]
    return 1 + int((scores > scores[engine.embeddings.ids.index(example.clip)]).sum())
