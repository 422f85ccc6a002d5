import json

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from dits.encoders import load_encoder

TINY = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


def write_open_clip_folder(folder, config=TINY, seed=0):
    """A small OpenCLIP model with random weights, saved in OpenCLIP's own folder format."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    model = open_clip.CLIP(**json.loads(json.dumps(config)))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return model.eval()


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders") / "tiny"
    write_open_clip_folder(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_encoder(tiny_folder):
    return load_encoder(f"local-dir:{tiny_folder}", device="cpu")
