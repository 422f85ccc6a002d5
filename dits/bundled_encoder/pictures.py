"""Pictures for the training of the encoder: varied crops, colours and backgrounds, and features of frozen towers."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter
from safetensors.torch import load_file, save_file
from torch import Tensor
from torchvision.transforms import v2

from dits.bundled_encoder.pairs.near_duplicates import flat
from dits.common.files import atomic_path
from dits.encoders.towers import IMAGE_MEAN, IMAGE_SIZE, IMAGE_STD

Progress = Callable[[int, int], None]

_BATCH = 32
_AT_ONCE = 8  # through the tower on a CPU: few images with their channels last stay in the cache
_MIN_SHARE = 0.55  # a drawing covers at least this share of its square's side


class Augmentation:
    """Random views of a picture: (3, IMAGE_SIZE, IMAGE_SIZE) uint8. Deterministic by seed."""

    def __init__(self, backdrops: Sequence[bytes], seed: int) -> None:
        """`backdrops` are encoded pictures to put drawings before, besides plain colours and gradients."""
        self.backdrops = backdrops
        self.rng = np.random.default_rng(seed)
        self.generator_seed = seed
        self._view = v2.Compose(
            [
                v2.RandomResizedCrop(IMAGE_SIZE, scale=(0.35, 1.0), interpolation=v2.InterpolationMode.BICUBIC),
                v2.RandomHorizontalFlip(),
                v2.ColorJitter(0.35, 0.35, 0.35, 0.05),
                v2.RandomGrayscale(0.05),
            ]
        )

    def __call__(self, data: bytes) -> Tensor:
        """A random view of an encoded picture."""
        image: Image.Image = Image.open(io.BytesIO(data))
        if "A" in image.getbands():
            image = self._before_backdrop(image)
        return self._view(_tensor(image.convert("RGB")))

    def _before_backdrop(self, drawing: Image.Image) -> Image.Image:
        side = IMAGE_SIZE + 40
        canvas = self._backdrop(side).convert("RGBA")
        drawing = drawing.convert("RGBA")
        reach = side * self.rng.uniform(_MIN_SHARE, 1.0) / max(drawing.size)
        size = (max(1, round(drawing.width * reach)), max(1, round(drawing.height * reach)))
        drawing = drawing.resize(size, Image.Resampling.BICUBIC)
        free = (side - drawing.width, side - drawing.height)
        place = tuple(int(self.rng.integers(0, room + 1)) for room in free)
        canvas.alpha_composite(drawing, place)
        return canvas

    def _backdrop(self, side: int) -> Image.Image:
        kind = self.rng.random()
        if kind < 0.35 or (kind >= 0.7 and not self.backdrops):
            return Image.new("RGB", (side, side), "white" if kind < 0.2 else self._colour())
        if kind < 0.7:
            corners = np.array([self._colour() for _ in range(4)], dtype=np.uint8).reshape(2, 2, 3)
            return Image.fromarray(corners).resize((side, side), Image.Resampling.BICUBIC)
        chosen = self.backdrops[int(self.rng.integers(len(self.backdrops)))]
        photo = flat(Image.open(io.BytesIO(chosen)))
        return photo.resize((side, side)).filter(ImageFilter.GaussianBlur(float(self.rng.uniform(2, 8))))

    def _colour(self) -> tuple[int, int, int]:
        red, green, blue = (int(value) for value in self.rng.integers(0, 256, size=3))
        return red, green, blue


def plain_view(data: bytes) -> Tensor:
    """The view that the encoder has of a picture: (3, IMAGE_SIZE, IMAGE_SIZE) uint8, scaled and cropped in the middle.

    Drawings stand before white, and are padded rather than cropped.
    """
    image = Image.open(io.BytesIO(data))
    if "A" in image.getbands():
        square = Image.new("RGB", (max(image.size),) * 2, "white")
        picture = flat(image)
        square.paste(picture, ((square.width - picture.width) // 2, (square.height - picture.height) // 2))
        return _tensor(square.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC))
    resized = v2.functional.resize(_tensor(image.convert("RGB")), [IMAGE_SIZE], v2.InterpolationMode.BICUBIC)
    return v2.functional.center_crop(resized, [IMAGE_SIZE, IMAGE_SIZE])


def normalise(views: Tensor) -> Tensor:
    """Views (B, 3, S, S) uint8 as the image tower takes them."""
    return v2.functional.normalize(views.float() / 255, list(IMAGE_MEAN), list(IMAGE_STD))


@torch.inference_mode()
def tower_features(
    trunk: Any, pictures: Sequence[bytes], crops: int, augment: Augmentation | None, progress: Progress
) -> Tensor:
    """Features (N, 1 + crops, 1280) of the image tower before its projection, in float16; the plain view first."""
    rows: list[Tensor] = []
    device = next(trunk.parameters()).device
    torch.manual_seed(augment.generator_seed if augment else 0)
    for start in range(0, len(pictures), _BATCH):
        batch = pictures[start : start + _BATCH]
        views = [plain_view(data) for data in batch]
        for _ in range(crops):
            assert augment is not None
            views += [augment(data) for data in batch]
        chunks = torch.stack(views).split(_AT_ONCE if device.type == "cpu" else len(views))
        images = (normalise(chunk.to(device)).contiguous(memory_format=torch.channels_last) for chunk in chunks)
        features = torch.cat([trunk(batch).cpu() for batch in images])
        rows.append(features.view(1 + crops, len(batch), -1).transpose(0, 1).half())
        progress(min(start + _BATCH, len(pictures)), len(pictures))
    return torch.cat(rows)


def cached_features(path: Path, make: Callable[[], Tensor]) -> Tensor:
    """Features from `path`, made and written there if it is missing."""
    if not path.is_file():
        features = make()
        with atomic_path(path) as temporary:
            save_file({"features": features.contiguous()}, temporary)
    return load_file(path)["features"]


def _tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
