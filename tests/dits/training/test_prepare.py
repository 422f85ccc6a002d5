"""Weights prepared for small encoders: trained, chosen on validation, cached, found and refused."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from dits.cli.parser import main
from dits.common.errors import CheckpointError, InputError
from dits.common.files import cache_root
from dits.corpora.corpus import Corpus
from dits.corpora.embeddings import corpus_embeddings
from dits.corpora.names import open_corpus
from dits.encoders.openclip import load_encoder
from dits.evaluation.metrics import selection_key
from dits.models.checkpoint import bundled_weights, find_weights, load_checkpoint, prepared_weights
from dits.models.retrieval import ModelConfig
from dits.search.loading import load_engine
from dits.search.methods import load_method
from dits.training.prepare import (
    PREPARED_METHODS,
    PrepareConfig,
    check_trainable,
    estimated_minutes,
    methods_to_train,
    prepare,
    prepare_weights,
)
from dits.training.trainer import pair_data, train, validate
from tests.conftest import write_open_clip_folder

CONFIG = PrepareConfig(epochs=2, batch_size=4, xpool_rates=(1e-5, 1e-2), dits_rates=(1e-5, 1e-3))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DITS_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def prepared(tiny_corpus, tiny_folder, tmp_path_factory):
    """A cache folder with weights for the tiny encoder, made on the tiny corpus, and the report."""
    folder = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DITS_CACHE", str(folder))
        report = prepare(f"local-dir:{tiny_folder}", str(tiny_corpus), config=CONFIG)
    return folder, report


@pytest.fixture
def copied(prepared, cache):
    """The cache folder of this test, filled with what was prepared."""
    shutil.copytree(prepared[0], cache_root())
    return prepared[1]


@pytest.fixture
def sources(tiny_corpus, tiny_folder):
    return ["--corpus", str(tiny_corpus), "--encoder", f"local-dir:{tiny_folder}"]


@pytest.fixture
def data(tiny_corpus, tiny_encoder):
    """The tiny corpus, its embeddings, and the pairs of a split."""
    corpus = open_corpus(str(tiny_corpus))
    embeddings = corpus_embeddings(corpus, tiny_encoder)
    return corpus, embeddings, lambda split: pair_data(corpus.split(split), tiny_encoder, embeddings)


def test_reported_metrics_are_those_of_the_cached_weights(copied, data, tiny_encoder):
    """Every number of the report, from the files in the cache folder."""
    _, _, pairs = data
    assert set(copied.results) == {"validation", "test"}
    for split, methods in copied.results.items():
        assert set(methods) == {"mean", "xpool", "dits"}
        for name, metrics in methods.items():
            model = load_method(name, tiny_encoder, pairs(split).frames).model
            assert validate(model, pairs(split)) == metrics
    for name in PREPARED_METHODS:
        header = load_checkpoint(prepared_weights(name, tiny_encoder.id), tiny_encoder, name).header
        assert copied.results["validation"][name] == {key: header.metric[key] for key in ("t2v", "v2t")}
        assert header.data["selected_on"] == "validation"


def test_rate_and_epoch_are_the_best_on_validation(copied, data, tiny_encoder):
    """Training X-Pool here with both rates leads to the same choice and the same weights."""
    _, _, pairs = data
    model = load_checkpoint(prepared_weights("xpool", tiny_encoder.id), tiny_encoder).model
    runs = [train(model.config, CONFIG.training(rate), pairs("train"), pairs("validation")) for rate in (1e-5, 1e-2)]
    best = max(runs, key=lambda run: selection_key(run.best))
    assert copied.weights["xpool"].learning_rate == (1e-5, 1e-2)[runs.index(best)]
    assert copied.weights["xpool"].epoch == best.best["epoch"]
    assert selection_key(best.best) == max(selection_key(record) for run in runs for record in run.history)
    for name, value in best.model.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value)


def test_the_test_split_does_not_affect_training(copied, data, tiny_encoder, monkeypatch, tmp_path):
    """Other captions and clips in the test split lead to the same weights, bit for bit."""
    corpus, embeddings, _ = data
    before = {
        name: load_checkpoint(find_weights(name, tiny_encoder.id), tiny_encoder).model for name in ("xpool", "dits")
    }
    monkeypatch.setenv("DITS_CACHE", str(tmp_path / "other"))
    clips = [replace(clip, captions=("nothing of the kind",)) if clip.split == "test" else clip for clip in corpus]
    changed = replace(embeddings, frames=embeddings.frames.clone())
    changed.frames[[clip.split == "test" for clip in clips]] = 0.5
    prepare_weights(Corpus(corpus.name, tuple(clips)), tiny_encoder, changed, config=CONFIG)
    for name, model in before.items():
        after = load_checkpoint(find_weights(name, tiny_encoder.id), tiny_encoder).model
        for key, value in model.state_dict().items():
            assert torch.equal(after.state_dict()[key], value)


def test_dits_starts_from_the_chosen_xpool_and_trains_without_noise(tiny_encoder, data, cache):
    corpus, embeddings, _ = data
    frozen = PrepareConfig(epochs=1, batch_size=4, xpool_rates=(1e-2,), dits_rates=(0.0,))
    prepare_weights(corpus, tiny_encoder, embeddings, config=frozen)
    xpool, dits = (
        load_checkpoint(find_weights(name, tiny_encoder.id), tiny_encoder).model for name in ("xpool", "dits")
    )
    for name, value in xpool.pooling.state_dict().items():
        torch.testing.assert_close(dits.pooling.state_dict()[name], value)
    assert dits.config.sampler.noise_scale == 0
    assert dits.config.sampler.steps == 10


def test_prepared_weights_are_found_by_search_and_evaluation(copied, sources, capsys):
    assert main(["search", "a plain colour 3", *sources, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["method"] == "dits"
    assert main(["evaluate", *sources, "--json", "--method", "mean,xpool,dits"]) == 0
    report = json.loads(capsys.readouterr().out)
    for name, directions in copied.results["test"].items():
        for direction, metrics in directions.items():
            assert {key: report["methods"][name][direction][key] for key in metrics} == metrics


def test_the_command_reports_and_trains_once(sources, capsys):
    small = ["--epochs", "1", "--batch-size", "4"]
    assert main(["prepare", *sources, *small, "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["weights"]["dits"]["origin"] == "trained"
    assert first["weights"]["dits"]["tried"] == [3e-6, 1e-5]
    written = {path: path.stat().st_mtime_ns for path in cache_root().rglob("*.safetensors")}
    assert main(["prepare", *sources, *small]) == 0
    table = capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in cache_root().rglob("*.safetensors")} == written
    assert "dits: prepared, on tiny, learning rate" in table
    r1 = first["results"]["test"]["dits"]["t2v"]["R@1"]
    assert f"| test | dits | t2v | {r1:.1f} |" in table
    assert main(["prepare", *sources, *small, "--json", "--force"]) == 0
    assert json.loads(capsys.readouterr().out)["weights"]["dits"]["origin"] == "trained"


def test_an_interrupted_preparation_resumes_to_the_same_weights(prepared, data, tiny_encoder, cache):
    corpus, embeddings, _ = data

    def interrupt(what, done, total):
        if (what, done, total) == ("Training DITS", 7, 8):
            raise KeyboardInterrupt

    steps = []
    with pytest.raises(KeyboardInterrupt):
        prepare_weights(corpus, tiny_encoder, embeddings, config=CONFIG, progress=interrupt)
    assert not find_weights("xpool", tiny_encoder.id).exists()
    prepare_weights(
        corpus, tiny_encoder, embeddings, config=CONFIG, progress=lambda what, *count: steps.append((what, *count))
    )
    assert [step for step in steps if step[0].startswith("Training")] == [
        ("Training DITS", 7, 8),
        ("Training DITS", 8, 8),
    ]
    assert not (cache_root() / "training").joinpath(tiny_encoder.id).exists()
    for name in PREPARED_METHODS:
        path = find_weights(name, tiny_encoder.id)
        uninterrupted = load_checkpoint(prepared[0] / path.relative_to(cache_root()), tiny_encoder).model.state_dict()
        for key, value in load_checkpoint(path, tiny_encoder).model.state_dict().items():
            torch.testing.assert_close(value, uninterrupted[key])


def test_damaged_training_states_are_ignored(data, tiny_encoder, cache):
    corpus, embeddings, _ = data
    state = cache_root() / "training" / tiny_encoder.id / "xpool-1e-05" / "state.safetensors"
    state.parent.mkdir(parents=True)
    state.write_bytes(b"not a state")
    weights = prepare_weights(corpus, tiny_encoder, embeddings, config=CONFIG)
    assert weights["xpool"].origin == "trained"


@pytest.mark.parametrize("damage", ["cut", "renamed"])
def test_unusable_prepared_weights_are_trained_again(copied, data, tiny_encoder, tiny_corpus, tmp_path, damage):
    """Truncated weights, or weights of another encoder in a renamed folder: refused, reported, and replaced."""
    corpus, embeddings, _ = data
    path = find_weights("dits", tiny_encoder.id)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:5000])
    else:
        write_open_clip_folder(tmp_path / "other", seed=7)
        tiny_encoder = load_encoder(f"local-dir:{tmp_path / 'other'}", device="cpu")
        path.parent.rename(prepared_weights("dits", tiny_encoder.id).parent)
        path = find_weights("dits", tiny_encoder.id)
        embeddings = corpus_embeddings(corpus, tiny_encoder)
    says = "damaged" if damage == "cut" else "trained for the encoder tiny-"
    with pytest.raises(CheckpointError, match=says):
        load_method("dits", tiny_encoder, embeddings.frames)
    notices = []
    weights = prepare_weights(corpus, tiny_encoder, embeddings, config=CONFIG, notice=notices.append)
    assert [method for method, entry in weights.items() if entry.origin == "trained"] == (
        ["dits"] if damage == "cut" else ["xpool", "dits"]
    )
    assert all("They are trained again." in notice and says in notice for notice in notices)
    assert len(notices) == (1 if damage == "cut" else 2)
    load_method("dits", tiny_encoder, embeddings.frames)


def test_an_engine_leaves_out_methods_without_weights(sources, tiny_corpus, tiny_folder):
    encoder = f"local-dir:{tiny_folder}"
    with pytest.raises(CheckpointError, match="python -m dits prepare"):
        load_engine(str(tiny_corpus), encoder)
    engine = load_engine(str(tiny_corpus), encoder, allow_missing=True)
    assert set(engine.methods) == {"mean"}
    assert engine.missing == {"xpool": None, "dits": None}
    assert engine.search("some colour", "mean").hits[0].ranks == {"mean": 1}
    with pytest.raises(
        InputError, match=r"'dits' has no weights for the encoder tiny-.*python -m dits prepare.*or choose mean"
    ):
        engine.search("some colour", "dits")
    with pytest.raises(InputError, match="no method 'magic'"):
        engine.search("some colour", "magic")
    prepare_weights(engine.corpus, engine.encoder, engine.embeddings, config=CONFIG)
    whole, fresh = engine.with_prepared(), load_engine(str(tiny_corpus), encoder)
    assert (whole.missing, fresh.missing) == ({}, {})
    for method in ("mean", "xpool", "dits"):
        assert whole.search("some colour", method).as_dict() == fresh.search("some colour", method).as_dict()


def test_an_engine_says_why_prepared_weights_are_left_out(copied, tiny_corpus, tiny_folder, tiny_encoder):
    path = find_weights("dits", tiny_encoder.id)
    path.write_bytes(b"")
    engine = load_engine(str(tiny_corpus), f"local-dir:{tiny_folder}", allow_missing=True)
    assert set(engine.methods) == {"mean", "xpool"}
    assert set(engine.missing) == {"dits"}
    assert engine.missing["dits"].startswith(f"The weights in {path} are damaged")


def test_a_given_weights_folder_must_contain_the_weights(tiny_corpus, tiny_folder, tmp_path):
    with pytest.raises(CheckpointError, match="weights are missing"):
        load_engine(str(tiny_corpus), f"local-dir:{tiny_folder}", weights=tmp_path, allow_missing=True)


def test_weights_of_one_corpus_serve_another(copied, tiny_encoder, data):
    corpus, embeddings, _ = data
    notices = []
    other = Corpus("another", corpus.clips)
    weights = prepare_weights(other, tiny_encoder, embeddings, config=CONFIG, notice=notices.append)
    assert {entry.origin for entry in weights.values()} == {"prepared"}
    assert notices == [
        f"The weights for {tiny_encoder.id} were prepared before, on tiny: they serve every corpus. To train them "
        "again on another, use --force."
    ]


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_corpus_without_a_needed_split_is_refused(data, split):
    corpus, _, _ = data
    rest = Corpus("mine", tuple(clip for clip in corpus if clip.split != split))
    with pytest.raises(InputError, match=f"The corpus 'mine' has no {split} split.*--corpus demo"):
        check_trainable(rest)


def test_the_command_refuses_such_a_corpus_before_embedding(tiny_corpus, sources, tmp_path, capsys):
    folder = tmp_path / "mine"
    shutil.copytree(tiny_corpus, folder)
    text = (folder / "captions.csv").read_text().replace(",train,", ",test,")
    (folder / "captions.csv").write_text(text)
    assert main(["prepare", "--corpus", str(folder), *sources[2:]]) == 2
    output = capsys.readouterr()
    assert len(output.err.splitlines()) == 1
    assert "has no train split" in output.err
    assert output.out == ""


def test_shipped_weights_are_not_prepared_again():
    encoder = load_encoder(device="cpu")
    assert methods_to_train(encoder) == []
    assert find_weights("dits", encoder.id) == bundled_weights("dits", encoder.id)
    with pytest.raises(InputError, match="are shipped, and are used before"):
        methods_to_train(encoder, force=True)


def test_the_time_estimate_depends_on_captions_and_width(data, tiny_encoder):
    corpus, _, _ = data
    assert estimated_minutes(corpus, tiny_encoder) == 1
    long = replace(corpus.clips[0], captions=("a text",) * 645 * 400)
    per_caption = 645 * 400 * 32**2 * 3 * 2 * (7e-9 + 8e-8) / 60
    assert estimated_minutes(Corpus("long", (long,)), tiny_encoder) == pytest.approx(per_caption, abs=1)


@pytest.mark.parametrize(
    "settings", [{"epochs": 0}, {"batch_size": 1}, {"xpool_rates": ()}, {"dits_rates": (-1.0,)}, {"seed": -1}]
)
def test_refuses_invalid_settings(settings):
    with pytest.raises(InputError):
        PrepareConfig(**settings)


def test_a_width_not_divisible_by_sixteen_heads(tmp_path, data, tiny_corpus):
    corpus, _, _ = data
    config = {
        "embed_dim": 40,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    }
    write_open_clip_folder(tmp_path / "wide", config)
    encoder = load_encoder(f"local-dir:{tmp_path / 'wide'}", device="cpu")
    prepare_weights(corpus, encoder, corpus_embeddings(corpus, encoder), config=CONFIG)
    network = load_checkpoint(find_weights("dits", encoder.id), encoder).model.config.network
    assert (network.dim, network.heads, network.depth) == (40, 8, 4)
    assert ModelConfig("dits").network.heads == 16
