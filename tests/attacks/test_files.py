"""Files from untrusted sources: weights, embeddings and encoders that would execute code, or fill the memory."""

import io
import json
import os
import pickle
import struct
import zipfile
from dataclasses import asdict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from analysis.features import read_features
from dits.common.errors import CheckpointError, EncoderError, InputError
from dits.encoders.openclip import load_encoder
from dits.models.checkpoint import load_checkpoint
from tests.attacks import memory
from tests.attacks.attack import attack
from tests.dits.models.test_checkpoint import header_for

GOOD = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)


class Evil:
    """Runs when it is unpickled."""

    ran = False

    def __reduce__(self):
        return setattr, (Evil, "ran", True)


@pytest.fixture
def little_memory():
    """Fails if a test takes much memory."""
    with memory.little_memory():
        yield


@pytest.fixture
def never_run():
    """Fails if an object was unpickled."""
    yield
    assert not Evil.ran


def pickles(folder):
    """The bytes of pickled files: in both formats of PyTorch, and a plain pickle."""
    torch.save({"a": Evil()}, folder / "zip.pt")
    torch.save({"a": Evil()}, folder / "old.pt", _use_new_zipfile_serialization=False)
    (folder / "bare.pkl").write_bytes(pickle.dumps(Evil()))
    return [(folder / name).read_bytes() for name in ("zip.pt", "old.pt", "bare.pkl")]


@attack(
    "weights", "a pickle named .safetensors, in PyTorch's formats and plain", "an error message; it is not executed"
)
def test_pickled_weights(tmp_path, tiny_encoder, never_run):
    for content in pickles(tmp_path):
        (tmp_path / "dits.safetensors").write_bytes(content)
        with pytest.raises(CheckpointError, match="damaged or were not written by this program"):
            load_checkpoint(tmp_path / "dits.safetensors", tiny_encoder)


@attack(
    "encoders",
    "a pickle as weights, another in the same folder, and files that are not .safetensors",
    "an error message; it is not executed",
)
def test_pickled_encoders(tmp_path, tiny_folder, never_run):
    config = (tiny_folder / "open_clip_config.json").read_text()
    (tmp_path / "open_clip_config.json").write_text(config)
    for content in pickles(tmp_path):
        (tmp_path / "open_clip_model.safetensors").write_bytes(content)
        with pytest.raises(EncoderError, match="are damaged or belong to another model"):
            load_encoder(f"local-dir:{tmp_path}", "cpu")
    for name in ("open_clip_pytorch_model.bin", "pytorch_model.bin"):
        (tmp_path / name).write_bytes(pickle.dumps(Evil()))
    for name in ("zip.pt", "bare.pkl", "pytorch_model.bin"):
        with pytest.raises(EncoderError, match=r"must be a \.safetensors file"):
            load_encoder(f"ViT-B-32/{tmp_path / name}", "cpu")
    (tmp_path / "open_clip_model.safetensors").unlink()
    with pytest.raises(EncoderError, match="weights are missing"):
        load_encoder(f"local-dir:{tmp_path}", "cpu")
    good = (tiny_folder / "open_clip_model.safetensors").read_bytes()
    (tmp_path / "open_clip_model.safetensors").write_bytes(good)
    assert load_encoder(f"local-dir:{tmp_path}", "cpu").dim == 32  # other files of the folder are not read


@attack(
    "weights, embeddings",
    "safetensors headers longer than the file or deeply nested, and tensors beyond its end",
    "an error message, little memory",
)
@pytest.mark.parametrize("read", [load_checkpoint, lambda path, _: read_features(path)], ids=["weights", "embeddings"])
def test_headers_that_lie(read, tmp_path, tiny_encoder, little_memory):
    tensor = {"dtype": "F32", "shape": [2**20, 2**20], "data_offsets": [0, 2**42]}
    nested = "[" * 100_000 + "]" * 100_000
    contents = [
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 2**40) + b"{}",
        *map(_safetensors, (
            json.dumps({"text": tensor}),
            json.dumps({"text": tensor | {"data_offsets": [0, 16]}}),
            json.dumps({"text": tensor | {"shape": [2**62, 2**62]}}),
            json.dumps({"text": tensor | {"shape": [-1], "data_offsets": [16, 0]}}),
            f'{{"text": {nested}}}',
            json.dumps({"__metadata__": {"dits": nested}}),
        )),
    ]  # fmt: skip
    for content in contents:
        (tmp_path / "x.safetensors").write_bytes(content)
        with pytest.raises((CheckpointError, InputError)) as caught:
            read(tmp_path / "x.safetensors", tiny_encoder)
        assert "\n" not in str(caught.value)


def _safetensors(header):
    return struct.pack("<Q", len(header)) + header.encode() + bytes(16)


@attack(
    "weights",
    "a configuration of a network with 2⁴⁰ parameters, or a million layers",
    "an error message, little memory",
)
def test_configurations_of_giants(tmp_path, tiny_encoder, little_memory):
    header = header_for(tiny_encoder)
    for section, change in (("network", {"depth": 10**6}), ("network", {"dim": 2**20}), ("pooling", {"dim": 2**20})):
        config = json.loads(json.dumps(header.config))
        config[section] |= change
        values = {"format": 2, **asdict(header), "config": config}
        tensors = {"encoder.fingerprint": tiny_encoder.fingerprint(), "a": torch.zeros(2)}
        save_file(tensors, tmp_path / "dits.safetensors", {"dits": json.dumps(values)})
        with pytest.raises(CheckpointError, match="do not fit its own configuration"):
            load_checkpoint(tmp_path / "dits.safetensors", tiny_encoder)


@attack(
    "embeddings",
    "a sparse safetensors file of 15 GiB that takes a few kilobytes on disk",
    "an error message, little memory",
)
def test_sparse_embeddings(tmp_path, little_memory):
    for gigabytes, says in ((15, "of the disk: embeddings never compress this much"), (40, "more than 16")):
        size = gigabytes * 2**30
        tensor = {"dtype": "F16", "shape": [size // 2 // 512, 512], "data_offsets": [0, size]}
        header = json.dumps({"text": tensor}).encode()
        path = tmp_path / "sparse.safetensors"
        path.write_bytes(struct.pack("<Q", len(header)) + header)
        os.truncate(path, 8 + len(header) + size)
        with pytest.raises(InputError, match=says):
            read_features(path)


@attack(
    "embeddings",
    "an npz with pickled objects: in an array, as an entry, and instead of the archive",
    "an error message; it is not executed",
)
def test_pickles_in_embeddings(tmp_path, never_run):
    np.savez(tmp_path / "array.npz", text=np.array([Evil()], dtype=object), video=GOOD)
    with zipfile.ZipFile(tmp_path / "entry.npz", "w") as archive:
        archive.writestr("text.npy", pickle.dumps(Evil()))
        archive.writestr("video", pickle.dumps(Evil()))
    (tmp_path / "bare.npz").write_bytes(pickle.dumps(Evil()))
    torch.save({"text": Evil()}, tmp_path / "torch.npz")
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(InputError) as caught:
            read_features(path)
        assert "\n" not in str(caught.value)


@attack(
    "embeddings",
    "an npz that unpacks to hundreds of times its size, or states a wrong size",
    "an error message, little memory",
)
def test_archives_that_unpack_to_much(tmp_path, little_memory):
    path = tmp_path / "bomb.npz"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("text.npy", "w", force_zip64=True) as entry,
    ):
        np.lib.format.write_array_header_1_0(entry, {"descr": "<f4", "fortran_order": False, "shape": (80, 2**20)})
        for _ in range(80):
            entry.write(bytes(4 * 2**20))
    assert path.stat().st_size < 2 * 2**20
    with pytest.raises(InputError, match="times its size: embeddings never compress this much"):
        read_features(path)
    data, size = path.read_bytes(), 80 * 4 * 2**20 + 128
    assert struct.pack("<I", size) in data
    path.write_bytes(data.replace(struct.pack("<I", size), struct.pack("<I", 100)))
    with pytest.raises(InputError):
        read_features(path)


@attack("embeddings", "array headers with too large shapes, deep nesting, or code", "an error message, little memory")
def test_headers_of_arrays_that_lie(tmp_path, little_memory, never_run):
    headers = [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1048576, 1048576)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 8)}",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
        "__import__('os').system('true')",
        "(" * 9000,
        "{'descr': [('a', " * 500,
        " " * 60_000,
    ]
    for header in headers:
        text = header.encode()
        with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
            archive.writestr("text.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(64))
            archive.writestr("video.npy", _npy(GOOD))
        with pytest.raises(InputError) as caught:
            read_features(tmp_path / "x.npz")
        assert "\n" not in str(caught.value)


@attack(
    "embeddings",
    "archive entries with paths, and 2,000 entries",
    "an error message; no file is written",
)
def test_entries_of_archives(tmp_path):
    for names in (
        ["../../outside.npy"],
        ["/etc/text.npy"],
        [f"{n}.npy" for n in range(2000)],
    ):
        with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
            for name in names:
                archive.writestr(name, _npy(GOOD))
        with pytest.raises(InputError) as caught:
            read_features(tmp_path / "x.npz")
        assert len(str(caught.value)) < 600
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]


def _npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()
