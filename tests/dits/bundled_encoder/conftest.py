import numpy as np
import pytest
from PIL import Image

from dits.bundled_encoder.config import EncoderTrainingConfig
from dits.bundled_encoder.pairs.shards import Pair, encode_picture, write_shards


@pytest.fixture
def shards(tmp_path):
    """Pairs of noise with captions: two sources of photographs and one of drawings."""
    rng = np.random.default_rng(0)

    def pair(source, number, count=1):
        pictures = tuple(
            encode_picture(Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8))) for _ in range(count)
        )
        return Pair(source, "p 1", f"{number}", "MIT", f"g{number}", (f"a thing number {number}", "noise"), pictures)

    pairs = [pair("demo", n, count=2) for n in range(4)] + [pair("templates", n) for n in range(4)]
    write_shards(tmp_path / "pairs", pairs + [pair("emoji", n) for n in range(4)], {})
    return tmp_path / "pairs"


SMALL = EncoderTrainingConfig(
    sources="demo,templates,emoji,classes",
    crops=1,
    hard=0.5,
    projection_steps=2,
    steps=2,
    validate_every=1,
    classes=4,
    photographs=4,
    drawings=4,
)
