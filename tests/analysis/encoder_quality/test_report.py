import io

import numpy as np
import pytest
import torch
from PIL import Image

from analysis.cli.parser import main
from analysis.encoder_quality.report import CATEGORY_NAMES, paraphrase_agreement, zero_shot
from analysis.encoder_quality.sources import selections, table
from dits.bundled_encoder.pairs.drawings import HELD_OUT_STAMPS
from dits.bundled_encoder.pairs.shards import Pair
from dits.common.errors import PairsError


class ColourEncoder:
    """Knows colours: a picture's embedding is its mean colour, a text's the colour that its first word stands for."""

    id = "colours"
    colours = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1)}  # noqa: RUF012

    def encode_text(self, texts):
        return torch.tensor([self.colours.get(text.split()[0], (1, 1, 1)) for text in texts]).float()

    def preprocess(self, frames):
        return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255

    def encode_frames(self, frames):
        return frames.mean(dim=(3, 4))


def stamp(colour, group, text):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, "WEBP", lossless=True)
    return Pair("stamps", "p 1", "f", "GPL", group, (text, "more"), (buffer.getvalue(),))


def test_zero_shot_counts_only_held_out_stamps():
    pairs = [
        stamp("red", "food/fruit", "red apple"),
        stamp("green", "food/fruit", "green apple"),
        stamp("blue", "animals/birds/small", "green bird"),  # wrong: the blue picture is nearest to "red" or "green"
        stamp("blue", "vehicles/ship", "blue boat"),
    ]
    result = zero_shot(ColourEncoder(), pairs)
    assert (result["pictures"], result["descriptions"]) == (3, 3)
    assert result["description"] == pytest.approx(200 / 3)
    assert 0 <= result["category"] <= 100
    with pytest.raises(PairsError, match="no held-out stamps"):
        zero_shot(ColourEncoder(), pairs[-1:])


def test_every_held_out_category_has_a_name():
    assert set(CATEGORY_NAMES) == set(HELD_OUT_STAMPS)


def test_paraphrases_that_rank_alike_agree_fully_and_opposite_ones_not():
    row = np.array([0.1, 0.5, 0.3, 0.9])
    agree = paraphrase_agreement(np.stack([row, row * 2 + 1]), np.array([0, 0]))
    assert agree == {"top1": 100.0, "spearman": pytest.approx(1.0)}
    oppose = paraphrase_agreement(np.stack([row, -row]), np.array([0, 0]))
    assert oppose == {"top1": 0.0, "spearman": pytest.approx(-1.0)}


def test_the_command_measures_a_corpus(tiny_folder, tiny_corpus, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("DITS_CACHE", str(tmp_path))
    assert main(["encoder", "--encoder", f"local-dir:{tiny_folder}", "--corpus", str(tiny_corpus)]) == 0
    printed = capsys.readouterr().out
    for measure in (
        "validation t2v R@1",
        "test v2t R@10",
        "test paraphrase top1",
        "test gap rmg",
        "test gap cone_text",
    ):
        assert f"| {measure} | " in printed
    assert main(["encoder", "--corpus", "nowhere"]) == 2
    assert capsys.readouterr().err.startswith("analysis: ")


def test_sources_are_compared_together_growing_and_each_left_out():
    names = [label for label, _ in selections(("demo", "templates", "emoji", "classes"))]
    assert names == [
        "all", "demo", "demo, templates", "all but demo", "all but templates", "all but emoji", "all but classes",
    ]  # fmt: skip
    assert dict(selections(("demo", "templates", "emoji")))["all but demo"] == ["templates", "emoji"]
    assert [label for label, _ in selections(("demo", "emoji"))] == [
        "all",
        "demo",
        "all but emoji",
    ]  # needs a photograph


def test_the_table_of_sources_prints_mean_and_spread():
    text = table([("all", [(50.0, 1.25), (80.0, 0.0), (90.0, 2.0), (60.0, 0.5)])])
    assert text.splitlines()[0] == "| sources | R@1 | R@5 | R@10 | video to text R@1 |"
    assert text.splitlines()[2] == "| all | 50.0 ± 1.2 | 80.0 ± 0.0 | 90.0 ± 2.0 | 60.0 ± 0.5 |"
