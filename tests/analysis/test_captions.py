"""The cache of caption embeddings."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from analysis.captions import caption_embeddings
from dits.common.errors import StorageError
from dits.common.files import cache_root

CAPTIONS = ("a dog runs", "two boxers", "a dog runs")


class Counted:
    """An encoder that counts its calls."""

    def __init__(self, encoder, name=None):
        self.encoder, self.id, self.dim, self.calls = encoder, name or encoder.id, encoder.dim, 0

    def encode_text(self, captions):
        self.calls += 1
        return self.encoder.encode_text(list(captions))


@pytest.fixture
def encoder(tiny_encoder):
    return Counted(tiny_encoder)


def test_computed_once_and_cached(encoder, tiny_encoder, tmp_path):
    first = caption_embeddings(encoder, CAPTIONS, tmp_path)
    second = caption_embeddings(encoder, CAPTIONS, tmp_path)
    assert torch.equal(first, tiny_encoder.encode_text(list(CAPTIONS)))
    assert torch.equal(first, second)
    assert encoder.calls == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_kept_in_the_cache_where_no_folder_is_named(encoder, tmp_path, monkeypatch):
    monkeypatch.setenv("DITS_CACHE", str(tmp_path))
    caption_embeddings(encoder, CAPTIONS)
    assert len(list((cache_root() / "captions").iterdir())) == 1


def test_other_captions_order_or_encoder_are_another_file(encoder, tiny_encoder, tmp_path):
    for captions in (CAPTIONS, CAPTIONS[1:], CAPTIONS[:2]):
        assert torch.equal(caption_embeddings(encoder, captions, tmp_path), tiny_encoder.encode_text(list(captions)))
    caption_embeddings(Counted(tiny_encoder, "another"), CAPTIONS, tmp_path)
    assert len(list(tmp_path.iterdir())) == 4


def damaged(path, damage):
    content = path.read_bytes()
    values = torch.ones(3, 32)
    if damage == "cut short":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "no format":
        path.write_bytes(b"text")
    elif damage == "no header":
        save_file({"texts": values}, path)
    elif damage == "another header":
        save_file({"texts": values}, path, metadata={"dits": json.dumps({"key": "another"})})
    else:
        save_file({"texts": values}, path, metadata={"dits": "{"})


@pytest.mark.parametrize("damage", ["cut short", "empty", "no format", "no header", "another header", "no JSON"])
def test_a_damaged_file_is_made_again(encoder, tmp_path, damage):
    first = caption_embeddings(encoder, CAPTIONS, tmp_path)
    [path] = tmp_path.iterdir()
    damaged(path, damage)
    assert torch.equal(caption_embeddings(encoder, CAPTIONS, tmp_path), first)
    assert encoder.calls == 2
    assert torch.equal(caption_embeddings(encoder, CAPTIONS, tmp_path), first)
    assert encoder.calls == 2


def test_a_file_of_another_shape_is_made_again(encoder, tmp_path):
    first = caption_embeddings(encoder, CAPTIONS, tmp_path)
    [path] = tmp_path.iterdir()
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    save_file({"texts": torch.ones(2, 32)}, path, metadata=header)
    assert torch.equal(caption_embeddings(encoder, CAPTIONS, tmp_path), first)
    assert encoder.calls == 2


def test_a_folder_that_cannot_be_is_one_sentence(encoder, tmp_path):
    (tmp_path / "taken").touch()
    with pytest.raises(StorageError, match="is not a folder"):
        caption_embeddings(encoder, CAPTIONS, tmp_path / "taken")
