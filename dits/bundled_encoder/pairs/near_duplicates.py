"""Pictures too close to a held-out clip to train on, found by perceptual hash."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from PIL import Image, ImageOps

MAX_DISTANCE = 10
"""Bits of 64 up to which two pictures count as the same. Whole pictures of the demo corpus's kind lie at 0 to 2 where
they are copies, at 12 and above where not; mirror images and halves bring a few false alarms at 10, at little cost."""


class NearDuplicates:
    """Knows the hashes of held-out pictures, and tells whether another picture is one of them.

    A picture is compared whole, mirrored, and by its halves, because sources show pictures side by side. Hashes are
    the 64-bit DCT hash of the ImageHash package.
    """

    def __init__(self, held_out: Iterable[Image.Image], distance: int = MAX_DISTANCE) -> None:
        self.distance = distance
        self._hashes = np.array([_hash(image) for image in held_out], dtype=np.uint64)

    def is_close(self, image: Image.Image) -> bool:
        """Whether the picture, its mirror image or one of its halves is within the distance of a held-out one."""
        if not len(self._hashes):
            return False
        own = np.array([_hash(view) for view in _views(image)], dtype=np.uint64)
        distances = np.bitwise_count(own[:, None] ^ self._hashes[None])
        return bool(distances.min() <= self.distance)


def _views(image: Image.Image) -> list[Image.Image]:
    image = flat(image)
    width, height = image.size
    views = [image, ImageOps.mirror(image)]
    if width >= 2 and height >= 2:
        views += [image.crop((0, 0, width // 2, height)), image.crop((width - width // 2, 0, width, height))]
    return views


def flat(image: Image.Image) -> Image.Image:
    """The picture in RGB; transparent parts become white."""
    if "A" not in image.getbands():
        return image.convert("RGB")
    background = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(background, image.convert("RGBA")).convert("RGB")


def _hash(image: Image.Image) -> int:
    import imagehash

    bits: Any = imagehash.phash(image).hash
    return int.from_bytes(np.packbits(bits.flatten()).tobytes(), "big")
