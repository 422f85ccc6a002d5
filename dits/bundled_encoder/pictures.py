"""Pictures for training the encoder: augmented views, the plain view, and features of the frozen image tower."""

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

from dits.bundled_encoder.pairs.near_duplicates import to_rgb
from dits.common.files import atomic_path
from dits.corpora.corpus import Progress
from dits.encoders.towers import IMAGE_MEAN, IMAGE_SIZE, IMAGE_STD, lower_stages, upper_stages

_BATCH = 32
_CPU_BATCH = 8  # few images in channels-last order fit in the CPU's cache
_MIN_SHARE = 0.55  # minimum size of a drawing, as a share of the side of its square


class Augmentation:
    """Random views (3, IMAGE_SIZE, IMAGE_SIZE) uint8 of pictures, deterministic by seed."""

    def __init__(self, backdrops: Sequence[bytes], seed: int) -> None:
        """`backdrops` are encoded pictures to use behind drawings, besides plain colours and gradients."""
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
            image = self._on_backdrop(image)
        return self._view(_tensor(image.convert("RGB")))

    def _on_backdrop(self, drawing: Image.Image) -> Image.Image:
        side = IMAGE_SIZE + 40
        canvas = self._backdrop(side).convert("RGBA")
        drawing = drawing.convert("RGBA")
        scale = side * self.rng.uniform(_MIN_SHARE, 1.0) / max(drawing.size)
        size = (max(1, round(drawing.width * scale)), max(1, round(drawing.height * scale)))
        drawing = drawing.resize(size, Image.Resampling.BICUBIC)
        margins = (side - drawing.width, side - drawing.height)
        position = tuple(int(self.rng.integers(0, margin + 1)) for margin in margins)
        canvas.alpha_composite(drawing, position)
        return canvas

    def _backdrop(self, side: int) -> Image.Image:
        kind = self.rng.random()
        if kind < 0.35 or (kind >= 0.7 and not self.backdrops):
            return Image.new("RGB", (side, side), "white" if kind < 0.2 else self._colour())
        if kind < 0.7:
            corners = np.array([self._colour() for _ in range(4)], dtype=np.uint8).reshape(2, 2, 3)
            return Image.fromarray(corners).resize((side, side), Image.Resampling.BICUBIC)
        chosen = self.backdrops[int(self.rng.integers(len(self.backdrops)))]
        photo = to_rgb(Image.open(io.BytesIO(chosen)))
        return photo.resize((side, side)).filter(ImageFilter.GaussianBlur(float(self.rng.uniform(2, 8))))

    def _colour(self) -> tuple[int, int, int]:
        red, green, blue = (int(value) for value in self.rng.integers(0, 256, size=3))
        return red, green, blue


def plain_view(data: bytes) -> Tensor:
    """The encoder's view of an encoded picture: scaled and centre-cropped to (3, IMAGE_SIZE, IMAGE_SIZE) uint8.

    Drawings get a white background, and are padded instead of cropped.
    """
    image = Image.open(io.BytesIO(data))
    if "A" in image.getbands():
        square = Image.new("RGB", (max(image.size),) * 2, "white")
        picture = to_rgb(image)
        square.paste(picture, ((square.width - picture.width) // 2, (square.height - picture.height) // 2))
        return _tensor(square.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC))
    resized = v2.functional.resize(_tensor(image.convert("RGB")), [IMAGE_SIZE], v2.InterpolationMode.BICUBIC)
    return v2.functional.center_crop(resized, [IMAGE_SIZE, IMAGE_SIZE])


def normalise(views: Tensor) -> Tensor:
    """Normalises views (B, 3, S, S) uint8 for the image tower."""
    return v2.functional.normalize(views.float() / 255, list(IMAGE_MEAN), list(IMAGE_STD))


@torch.inference_mode()
def tower_features(
    trunk: Any,
    pictures: Sequence[bytes],
    crops: Sequence[int],
    augment: Augmentation | None,
    progress: Progress,
    upper: int = 0,
) -> dict[str, Tensor]:
    """What the image tower computes of every view, in float16; the views of a picture follow each other, plain first.

    Args:
        crops: the number of random views of each picture, besides the plain one.
        upper: the number of the tower's last stages whose input is returned, too.

    Returns:
        "features" (R, 1280), before the projection, and with `upper` "maps" (R, C, H, W).
    """
    rows: dict[str, list[Tensor]] = {"features": [], "maps": []}
    device = next(trunk.parameters()).device
    torch.manual_seed(augment.generator_seed if augment else 0)
    for start in range(0, len(pictures), _BATCH):
        views = []
        for data, count in zip(pictures[start : start + _BATCH], crops[start : start + _BATCH], strict=True):
            assert augment is not None or not count
            views += [plain_view(data), *(augment(data) for _ in range(count) if augment)]
        for chunk in torch.stack(views).split(_CPU_BATCH if device.type == "cpu" else len(views)):
            images = normalise(chunk.to(device)).contiguous(memory_format=torch.channels_last)
            maps = lower_stages(trunk, images, upper)
            rows["features"].append(upper_stages(trunk, maps, upper).half().cpu())
            if upper:
                rows["maps"].append(maps.half().cpu().contiguous())
        progress(min(start + _BATCH, len(pictures)), len(pictures))
    return {name: torch.cat(parts) for name, parts in rows.items() if parts}


def cached_tensors(path: Path, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of the file `path`, mapped into memory; it is written with the result of `make` if it is missing."""
    if not path.is_file():
        tensors = {name: value.contiguous() for name, value in make().items()}
        with atomic_path(path) as temporary:
            save_file(tensors, temporary)
    return load_file(path)


def cached_tensor(path: Path, name: str, make: Callable[[], Tensor]) -> Tensor:
    """The tensor `name` of the file `path`, which is written with the result of `make` if it is missing."""
    return cached_tensors(path, lambda: {name: make()})[name]


def _tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
