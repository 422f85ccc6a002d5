"""The example queries keep what they promise."""

from collections import Counter

from ui.examples import read_examples

EXAMPLES = [example for examples in read_examples().values() for example in examples]


def test_the_right_clip_comes_first_for_every_example(engine):
    """Under the method that the app starts with."""
    found = {example.query: engine.search(example.query, "dits", 1).hits[0].clip.id for example in EXAMPLES}
    assert found == {example.query: example.clip for example in EXAMPLES}


def test_every_kind_has_at_least_three():
    counts = Counter(example.kind for example in EXAMPLES)
    kinds = {"Moving clips", "People", "Animals", "Vehicles", "Food", "Landscapes", "Drawings", "3-D renders"}
    assert set(counts) == kinds
    assert min(counts.values()) >= 3


def test_no_example_is_a_caption_word_for_word(demo):
    captions = {caption for clip in demo for caption in clip.captions}
    assert not captions & {example.query for example in EXAMPLES}
