"""Write an encoder to a folder in OpenCLIP's format, which `--encoder local-dir:FOLDER` loads."""

import tempfile
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from dits.common.errors import EncoderError
from dits.common.files import atomic_path, make_folder, storage_errors, write_json
from dits.encoders.openclip import OpenClipEncoder
from dits.encoders.towers import WEIGHTS

_PREPROCESSING = ("mean", "std", "interpolation", "resize_mode", "fill_color")


def check_writable(encoder: OpenClipEncoder) -> None:
    """Check, before a training starts, that the encoder can be written to a folder.

    Raises:
        EncoderError: OpenCLIP does not read this kind of tokenizer from a folder.
    """
    from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

    if not isinstance(encoder.tokenizer, HFTokenizer | SimpleTokenizer):
        raise EncoderError(
            f"The encoder {encoder.id} cannot be trained: OpenCLIP does not read its tokenizer "
            f"({type(encoder.tokenizer).__name__}) from a folder. Choose another encoder."
        )


def write_encoder(encoder: OpenClipEncoder, folder: Path) -> None:
    """Write the encoder's configuration, tokenizer and weights (float32), the weights last.

    Raises:
        EncoderError: see `check_writable`.
        StorageError: the folder cannot be written, or the disk is full.
    """
    check_writable(encoder)
    make_folder(folder)
    config = encoder.model_config()
    config["text_cfg"] = _write_text_tower(encoder, dict(config["text_cfg"]), folder)
    if "timm_model_name" in config["vision_cfg"]:
        config["vision_cfg"] = config["vision_cfg"] | {"timm_model_pretrained": False}
    preprocessing = {
        name: encoder.transform.config[name] for name in _PREPROCESSING if name in encoder.transform.config
    }
    write_json(folder / "open_clip_config.json", {"model_cfg": config, "preprocess_cfg": preprocessing})
    # Cloned: tied weights share memory, which safetensors rejects.
    tensors = {name: value.detach().cpu().clone().contiguous() for name, value in encoder.module.state_dict().items()}
    with atomic_path(folder / WEIGHTS) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})


def _write_text_tower(encoder: OpenClipEncoder, text: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Write the files of the text tower; return its configuration, with names replaced by the folder."""
    from open_clip.tokenizer import HFTokenizer

    if isinstance(encoder.tokenizer, HFTokenizer):
        text["hf_tokenizer_name"] = "."
        _write_files(encoder.tokenizer, folder)
    if "hf_model_name" in text:
        text |= {"hf_model_name": ".", "hf_model_pretrained": False}
        _write_files(encoder.module.text.config, folder)
    return text


def _write_files(source: Any, folder: Path) -> None:
    """Write the files of a transformers object, each atomically."""
    with storage_errors(folder), tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as temporary:
        source.save_pretrained(temporary)
        for path in Path(temporary).iterdir():
            path.replace(folder / path.name)
