"""Decoded frames -> the input pixels of an encoder: its own evaluation transform, and one for training.

Pixels stay uint8 until they are on the encoder's device: a quarter of the bytes to copy between processes and to a GPU.
"""

from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

CROP_SCALE = (0.5, 1.0)  # range of the area of a training crop, relative to the frame (layer6ai-labs/xpool)


class FrameTransform:
    """The preprocessing of one encoder; can be pickled for worker processes."""

    def __init__(self, config: dict[str, Any]) -> None:
        """`config` is OpenCLIP's preprocess configuration: size, mean, std, interpolation, resize_mode, fill_color."""
        self.config = config

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the network input."""
        size = self.config["size"]
        return (size, size) if isinstance(size, int) else (size[0], size[1])

    def crop(self, frames: np.ndarray) -> Tensor:
        """Pixels (F, 3, H, W), uint8, of RGB frames (F, H, W, 3): resized and cropped as in OpenCLIP's evaluation."""
        from PIL import Image

        cropped = (np.asarray(self._resize_and_crop(Image.fromarray(frame))) for frame in frames)
        return torch.from_numpy(np.stack(list(cropped))).permute(0, 3, 1, 2).contiguous()

    def augment(self, frames: np.ndarray) -> Tensor:
        """Pixels (F, 3, H, W), uint8, of RGB frames (F, H, W, 3): one random crop and flip for all frames of the clip.

        X-Pool's training transform without ColorJitter, whose strengths are 0 there. Uses PyTorch's global generator.
        """
        return self._crop_and_flip(torch.from_numpy(frames).permute(0, 3, 1, 2)).contiguous()

    def normalise(self, pixels: Tensor) -> Tensor:
        """The network input (..., 3, H, W), float32, for uint8 pixels of the same shape, on the same device."""
        mean, std = (torch.tensor(self.config[name], device=pixels.device)[:, None, None] for name in ("mean", "std"))
        return pixels.float().div_(255).sub_(mean).div_(std)

    @cached_property
    def _resize_and_crop(self) -> Any:
        from open_clip.transform import PreprocessCfg, image_transform_v2
        from torchvision.transforms import Compose

        transform = image_transform_v2(PreprocessCfg(**self.config), is_train=False)
        return Compose(transform.transforms[:-2])  # without ToTensor and Normalize: `normalise` does both

    @cached_property
    def _crop_and_flip(self) -> Any:
        from torchvision.transforms import v2

        bilinear = self.config.get("interpolation") == "bilinear"
        interpolation = v2.InterpolationMode.BILINEAR if bilinear else v2.InterpolationMode.BICUBIC
        crop = v2.RandomResizedCrop(self.size, scale=CROP_SCALE, interpolation=interpolation, antialias=True)
        return v2.Compose([crop, v2.RandomHorizontalFlip()])
