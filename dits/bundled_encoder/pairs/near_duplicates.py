"""Finding pictures that are too close to a held-out clip to train on, by perceptual hash."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from PIL import Image, ImageOps

MAX_DISTANCE = 10
"""Maximum number of different bits, of 64, between near-duplicates. In pictures like those of the demo corpus, copies
differ in 0 to 2 bits and other pictures in at least 12. Mirror images and halves cause a few false alarms at 10."""


class NearDuplicates:
    """Compares pictures with the hashes of held-out pictures (64-bit DCT hashes of the ImageHash package).

    A picture is compared whole, mirrored, and by its halves, because some sources show two pictures side by side.
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
    image = to_rgb(image)
    width, height = image.size
    views = [image, ImageOps.mirror(image)]
    if width >= 2 and height >= 2:
        views += [image.crop((0, 0, width // 2, height)), image.crop((width - width // 2, 0, width, height))]
    return views


def to_rgb(image: Image.Image) -> Image.Image:
    """Converts a picture to RGB; transparent parts become white."""
    if "A" not in image.getbands():
        return image.convert("RGB")
    background = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(background, image.convert("RGBA")).convert("RGB")


def _hash(image: Image.Image) -> int:
    import imagehash

    bits: Any = imagehash.phash(image).hash
    return int.from_bytes(np.packbits(bits.flatten()).tobytes(), "big")
