"""Training from video: the written files and loading them, resuming after a kill, and refused settings."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dits.cli.parser import main
from dits.common.errors import CheckpointError, DitsError, InputError
from dits.corpora.names import open_corpus
from dits.encoders.folder import write_encoder
from dits.encoders.openclip import load_encoder
from dits.models.pooling import PoolingConfig
from dits.models.retrieval import ModelConfig, RetrievalModel
from dits.search.loading import load_engine
from dits.training.joint.config import JointTrainingConfig
from dits.training.joint.data import derived_seed, full_batches, joint_data, plan_steps
from dits.training.joint.distributed import World
from dits.training.joint.model import JointModel
from dits.training.joint.run_log import RunLog
from dits.training.joint.trainer import train_jointly
from dits.training.optimisation import parameter_groups
from tests.conftest import REPOSITORY, TINY, write_open_clip_folder
from tests.dits.training.joint.test_distributed import torchrun
from tests.fixtures.hostile_items import DeadlyPath, EndlessPath

QUICK = JointTrainingConfig(
    epochs=2, batch_size=4, learning_rate=1e-3, clip_learning_rate=1e-3, workers=0, frames=2, seed=3
)
XPOOL = ModelConfig("xpool", PoolingConfig(dim=32, dropout=0.1))
FLAGS = ["--joint", "--workers", "0", "--batch-size", "4", "--frames", "2"]
SAMPLER = ["--steps", "2", "--depth", "1", "--heads", "4"]
RATES = ["--learning-rate", "1e-3", "--clip-learning-rate", "1e-3"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DITS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def encoder(tiny_folder):
    """A fresh encoder for each test, as training changes it."""
    return load_encoder(f"local-dir:{tiny_folder}", device="cpu")


@pytest.fixture
def data(tiny_corpus, encoder):
    return joint_data(open_corpus(str(tiny_corpus)), QUICK, encoder, World())


@pytest.fixture
def sources(tiny_corpus, tiny_folder):
    return ["--corpus", str(tiny_corpus), "--encoder", f"local-dir:{tiny_folder}"]


def header_of(path):
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["dits"])


def step_of(state):
    with safe_open(state, framework="pt") as file:
        return json.loads(file.metadata()["joint-training"])["step"]


# --- From the command line to search ---


@pytest.mark.parametrize(("method", "extra"), [("dits", SAMPLER), ("mean", [])])
def test_trained_weights_load_everywhere_and_give_the_same_metrics(
    method, extra, sources, tiny_corpus, tiny_encoder, tmp_path, capsys
):
    out = tmp_path / "out"
    assert main(["train", method, *FLAGS, *RATES, *sources, *extra, "--epochs", "1", "--out", str(out)]) == 0
    trained = ["--corpus", str(tiny_corpus), "--encoder", f"local-dir:{out / 'encoder'}", "--weights", str(out)]
    header = header_of(out / f"{method}.safetensors")
    capsys.readouterr()
    for _ in range(2):  # the second time with cached embeddings
        assert main(["evaluate", *trained, "--method", method, "--split", "validation", "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        for direction in ("t2v", "v2t"):
            assert report["methods"][method][direction].items() >= header["metric"][direction].items()
    assert report["encoder"] == header["encoder"]
    assert header["data"]["selected_on"] == "validation"
    assert header["training"]["joint"] is True
    assert main(["search", "a plain colour", *trained, "--method", method, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["method"] == method
    engine = load_engine(str(tiny_corpus), f"local-dir:{out / 'encoder'}", weights=out)
    assert set(engine.methods) >= {"mean", method}
    assert not torch.equal(engine.encoder.fingerprint(), tiny_encoder.fingerprint())


def test_the_weights_are_refused_with_the_encoder_that_training_started_from(sources, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["train", "xpool", *FLAGS, *sources, "--max-steps", "1", "--out", str(out)]) == 0
    assert main(["search", "red", *sources, "--weights", str(out), "--method", "xpool"]) == 2
    assert "trained for the encoder encoder-" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--joint", "--half", "--out", "out"], "--half is for training on cached embeddings"),
        (["--joint", "--out", "weights.safetensors"], "--out is a folder"),
        (["--micro-batch", "2", "--out", "x.safetensors"], "--micro-batch: only joint training uses this"),
        (["--joint", "--precision", "fp8", "--out", "out"], "There is no precision 'fp8': choose one of fp32, bf16"),
        (["--joint", "--epoch-captions", "64", "--out", "out"], "Training from video has no epoch_captions"),
        (["--joint", "--workers", "-1", "--out", "out"], "The workers must be 0 or more, not -1"),
        (["--joint", "--device", "tpu", "--out", "out"], "There is no device 'tpu'"),
        (["--joint", "--out", "out"], "A batch of 32 cannot be filled from 4 videos"),
        (["--joint", "--batch-size", "9", "--no-distinct-videos", "--out", "out"], "cannot be filled from 8 captions"),
    ],
)
def test_bad_arguments_are_one_sentence(arguments, message, sources, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "xpool", *sources, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


# --- Learning ---


def test_training_lowers_the_loss_and_changes_both_towers(encoder, data, tmp_path):
    before = {name: value.clone() for name, value in encoder.module.state_dict().items()}
    gently = {"learning_rate": 3e-4, "clip_learning_rate": 3e-4, "warmup": 0.3, "augment": False}
    result = train_jointly(ModelConfig("mean"), replace(QUICK, epochs=12, **gently), encoder, data, tmp_path)
    assert [record["step"] for record in result.history] == list(range(2, 25, 2))
    assert [record["epoch"] for record in result.history] == list(range(1, 13))
    losses = [record["loss"] for record in result.history]
    assert np.mean(losses[-2:]) < 0.75 * np.mean(losses[:2])
    changed = {
        name.split(".")[0] for name, value in encoder.module.state_dict().items() if (value != before[name]).any()
    }
    assert {"visual", "transformer", "token_embedding", "text_projection"} <= changed


def test_clip_with_its_temperature_has_its_own_learning_rate(encoder):
    """X-Pool's two groups, with decay on all parameters; CLIP4Clip's groups have no decay on vectors."""
    clip = list(encoder.module.parameters())
    for decay_vectors in (True, False):
        groups = parameter_groups([(clip, 1e-6), ([torch.nn.Parameter(torch.zeros(2, 2))], 1e-5)], 0.2, decay_vectors)
        assert {group["lr"] for group in groups} == {1e-6, 1e-5}
        for group in groups:
            for parameter in group["params"]:
                assert group["weight_decay"] == (0.2 if decay_vectors or parameter.ndim > 1 else 0.0)
        assert sum(len(group["params"]) for group in groups) == len(clip) + 1


def test_a_learning_rate_of_zero_keeps_clip_and_temperature(encoder, data, tmp_path):
    before = encoder.fingerprint()
    temperature = encoder.module.logit_scale.clone()
    result = train_jointly(XPOOL, replace(QUICK, clip_learning_rate=0.0), encoder, data, tmp_path)
    assert torch.equal(encoder.fingerprint(), before)
    assert torch.equal(result.model.logit_scale, temperature)  # training starts from CLIP's own


def test_a_given_temperature_is_the_start_and_trains_at_its_own_rate(encoder, data, tmp_path):
    before = encoder.fingerprint()
    still = {"clip_learning_rate": 0.0, "temperature": 20.0, "weight_decay": 1.0, "epochs": 1}
    for rate, name in ((0.0, "fixed"), (0.01, "trained")):
        config = replace(QUICK, **still, temperature_rate=rate, alignment_weight=1.0)
        result = train_jointly(XPOOL, config, encoder, data, tmp_path / name)
        steps = result.best["step"]
        assert rate * steps * 0.5 <= abs(np.log(result.model.temperature / 20.0)) <= rate * steps + 1e-6
    assert torch.equal(encoder.fingerprint(), before)


def test_batch_norms_keep_their_statistics():
    encoder = load_encoder(device="cpu")
    model = JointModel(encoder, RetrievalModel(ModelConfig("mean")), World()).train()
    norms = [module for module in encoder.module.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert norms
    assert not any(module.training for module in norms)
    assert model.training


# --- Batches ---


@pytest.mark.parametrize("distinct", [True, False])
def test_batches_are_full_and_hold_every_caption_once(distinct):
    video_of = np.repeat(np.arange(50), 4)
    batches = full_batches(video_of, 8, seed=1, distinct=distinct)
    assert all(len(batch) == 8 for batch in batches)
    captions = np.concatenate(batches)
    assert len(set(captions.tolist())) == len(captions) >= 0.9 * len(video_of)
    if distinct:
        assert all(len(set(video_of[batch].tolist())) == 8 for batch in batches)
    assert not np.array_equal(np.concatenate(full_batches(video_of, 8, 2, distinct))[:8], captions[:8])


def test_the_plan_ends_every_epoch_with_an_evaluation():
    video_of = np.repeat(np.arange(10), 2)
    plan, evaluate_after, ends = plan_steps(video_of, replace(QUICK, epochs=3, evaluations=2))
    assert len(plan) == ends[-1]
    assert set(ends) <= evaluate_after
    assert len(evaluate_after) == 6
    short, evaluate_after, _ = plan_steps(video_of, replace(QUICK, epochs=3, max_steps=4))
    assert all(np.array_equal(a, b) for a, b in zip(short, plan, strict=False))
    assert len(short) == max(step for step in evaluate_after if step <= 4) == 4


def test_derived_seeds_differ_if_their_numbers_do():
    seeds = {derived_seed(a, b, c) for a in range(10) for b in range(10) for c in range(10)}
    assert len(seeds) == 1000


# --- Resumption ---


def command_line(sources, out):
    more = [*RATES, "--epochs", "8", "--save-every", "1", "--evaluations", "1", "--frame-sampling", "random"]
    return ["train", "dits", *FLAGS, *SAMPLER, *sources, *more, "--out", str(out)]


def test_an_interrupted_run_resumes_bit_for_bit(encoder, data, tiny_folder, tmp_path):
    """In this process, after its first evaluation, with every kind of randomness on."""
    config = replace(QUICK, epochs=3, frame_sampling="random", evaluations=1, save_every=1, micro_batch=3)
    train_jointly(XPOOL, config, encoder, data, tmp_path / "uninterrupted")

    def interrupt(line):
        raise KeyboardInterrupt

    for report in (interrupt, lambda line: None):
        again = load_encoder(f"local-dir:{tiny_folder}", device="cpu")
        with suppress(KeyboardInterrupt):
            train_jointly(XPOOL, config, again, data, tmp_path / "stopped", report=report)
        if report is interrupt:
            assert step_of(tmp_path / "stopped" / "state.safetensors") == 2
    for name in ("state", "best"):
        ours, theirs = (load_file(tmp_path / run / f"{name}.safetensors") for run in ("stopped", "uninterrupted"))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.slow
def test_a_killed_run_resumes_bit_for_bit(sources, tmp_path):
    """A separate process, killed at any point after some of its 16 steps, perhaps during a write."""
    uninterrupted, killed = tmp_path / "uninterrupted", tmp_path / "killed"
    assert main(command_line(sources, uninterrupted)) == 0
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # bits depend on it
    process = subprocess.Popen(
        [sys.executable, "-m", "dits", *command_line(sources, killed)], cwd=REPOSITORY, env=environment,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    state = killed / "run" / "state.safetensors"
    stop_at, deadline = int.from_bytes(os.urandom(1), "big") % 7 + 3, time.monotonic() + 120
    while time.monotonic() < deadline and not (state.is_file() and step_of(state) >= stop_at):
        assert process.poll() is None, "the run ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=20)
    assert stop_at <= step_of(state) < 16
    assert not (killed / "encoder").exists()
    assert main(command_line(sources, killed)) == 0
    for name in (
        "run/state.safetensors",
        "run/best.safetensors",
        "encoder/open_clip_model.safetensors",
        "dits.safetensors",
    ):
        ours, theirs = load_file(killed / name), load_file(uninterrupted / name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs), name
    assert header_of(killed / "dits.safetensors")["metric"] == header_of(uninterrupted / "dits.safetensors")["metric"]
    records = [json.loads(line)["step"] for line in (killed / "run" / "records.jsonl").read_text().splitlines()]
    assert records == sorted(records)
    assert len(records) == 8 + 1  # an evaluation every other step, and the loss of every tenth


def test_a_run_of_another_configuration_is_refused(encoder, data, tmp_path, tiny_folder):
    train_jointly(XPOOL, replace(QUICK, max_steps=1), encoder, data, tmp_path)
    fresh = load_encoder(f"local-dir:{tiny_folder}", device="cpu")
    with pytest.raises(CheckpointError, match="another configuration, encoder or data"):
        train_jointly(XPOOL, replace(QUICK, max_steps=2), fresh, data, tmp_path)


def test_a_damaged_state_is_refused(encoder, data, tmp_path):
    (tmp_path / "state.safetensors").write_bytes(b"no state")
    with pytest.raises(CheckpointError, match="is damaged: remove its folder"):
        train_jointly(XPOOL, QUICK, encoder, data, tmp_path)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_state(encoder, data, tmp_path):
    wild = replace(QUICK, epochs=5, learning_rate=1e30, clip_learning_rate=1e30, warmup=0.0, save_every=1)
    with pytest.raises(DitsError, match=r"The (loss|gradient) is not finite at step \d+") as error:
        train_jointly(XPOOL, wild, encoder, data, tmp_path)
    failed = int(str(error.value).split("at step ")[1].split(":")[0])
    assert failed > 1
    assert step_of(tmp_path / "state.safetensors") == failed - 1


def test_processes_that_do_not_divide_the_batch_are_refused(encoder, data, tmp_path):
    with pytest.raises(InputError, match="A batch of 4 pairs cannot be shared by 3 processes"):
        train_jointly(XPOOL, QUICK, encoder, data, tmp_path, world=World(0, 3))


# --- Videos that cannot be decoded ---


@pytest.fixture
def torn_corpus(tiny_corpus, tmp_path):
    folder = tmp_path / "torn"
    folder.mkdir()
    for path in tiny_corpus.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "clip3.mp4").write_bytes(b"torn")
    return folder


def test_an_undecodable_video_is_named(torn_corpus, encoder, tmp_path):
    corpus = open_corpus(str(torn_corpus))
    with pytest.raises(DitsError, match=r"clip3\.mp4 is not a video"):
        train_jointly(XPOOL, QUICK, encoder, joint_data(corpus, QUICK, encoder, World()), tmp_path / "run")


def test_an_undecodable_video_is_left_out_on_request(torn_corpus, tiny_folder, tmp_path, capsys):
    out = tmp_path / "out"
    sources = ["--corpus", str(torn_corpus), "--encoder", f"local-dir:{tiny_folder}", "--undecodable", "skip"]
    few = ["--max-steps", "1", "--batch-size", "3"]
    assert main(["train", "xpool", *FLAGS, *sources, *few, "--select-on", "test", "--out", str(out)]) == 0
    errors = capsys.readouterr().err
    assert "Left out 1 videos that cannot be decoded." in errors
    assert f"clip3: {torn_corpus / 'clip3.mp4'} is not a video that can be read" in errors
    header = header_of(out / "xpool.safetensors")
    assert header["data"]["skipped"] == 1
    assert header["data"]["selected_on"] == "test"


def test_videos_that_crash_or_hang_their_decoder_are_left_out_on_request(tiny_corpus, encoder, tmp_path):
    """One file ends every process that opens it, the other blocks it; training continues with the rest."""
    corpus = open_corpus(str(tiny_corpus))
    hostile = {"clip0": DeadlyPath(), "clip4": EndlessPath()}
    clips = tuple(replace(clip, path=hostile.get(clip.id, clip.path)) for clip in corpus)
    config = replace(QUICK, undecodable="skip", decode_seconds=8, batch_size=3, max_steps=1)
    data = joint_data(replace(corpus, clips=clips), config, encoder, World())
    assert {name: reason.partition(";")[0] for name, reason in data.skipped.items()} == {
        "clip0": "it ends the process that decodes it",
        "clip4": "it took longer than 8 seconds",
    }
    assert [clip.id for clip in data.train] == ["clip3", "clip6", "clip9"]
    assert [clip.id for clip in data.evaluation] == ["clip1", "clip7", "clip10"]
    assert train_jointly(XPOOL, config, encoder, data, tmp_path / "run").best["step"] == 1


# --- Records ---


def test_records_of_repeated_steps_are_dropped(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 5, "loss": 1.0}\n{"step": 7, "lo')
    log = RunLog(path, step=4)
    log.write({"step": 5, "loss": 1.5})
    log.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 1, "loss": 2.0},
        {"step": 5, "loss": 1.5},
    ]


def test_tensorboard_has_the_records(encoder, data, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    config = replace(QUICK, epochs=5)
    result = train_jointly(XPOOL, config, encoder, data, tmp_path / "run", log_dir=tmp_path / "logs")
    events = accumulator.EventAccumulator(str(tmp_path / "logs"))
    events.Reload()
    recall = [(event.step, event.value) for event in events.Scalars("t2v/R@1")]
    assert recall == [(record["step"], record["t2v"]["R@1"]) for record in result.history]
    assert [event.step for event in events.Scalars("pairs_a_second")] == [10]


def test_a_missing_tensorboard_is_reported_before_training(sources, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    arguments = ["--out", str(tmp_path / "out"), "--log-dir", str(tmp_path / "logs")]
    assert main(["train", "xpool", *FLAGS, *sources, *arguments]) == 2
    assert "pip install tensorboard" in capsys.readouterr().err


# --- Writing and loading encoders ---


@pytest.mark.parametrize("kind", ["quick_gelu", "custom_text", "bundled"])
def test_a_written_encoder_is_the_same_encoder(kind, tmp_path):
    name = "bundled"
    if kind != "bundled":
        folder = tmp_path / "first"
        config = TINY | {kind: True}
        write_open_clip_folder(folder, config if kind == "quick_gelu" else TINY)
        if kind == "custom_text":
            model = open_clip.CustomTextCLIP(**TINY)
            save_file(model.state_dict(), folder / "open_clip_model.safetensors")
        preprocess = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7], "interpolation": "bilinear"}
        whole = {"model_cfg": config, "preprocess_cfg": preprocess}
        (folder / "open_clip_config.json").write_text(json.dumps(whole))
        name = f"local-dir:{folder}"
    encoder = load_encoder(name, device="cpu")
    write_encoder(encoder, tmp_path / "second")
    again = load_encoder(f"local-dir:{tmp_path / 'second'}", device="cpu")
    assert again.quick_gelu == encoder.quick_gelu == (kind == "quick_gelu")
    assert torch.equal(
        again.encode_text(["a dog runs", "two boxers"]), encoder.encode_text(["a dog runs", "two boxers"])
    )
    frames = np.random.default_rng(0).integers(0, 256, size=(2, 50, 70, 3), dtype=np.uint8)
    inputs = encoder.preprocess(frames)[None]
    assert torch.equal(again.preprocess(frames)[None], inputs)
    assert torch.equal(again.encode_frames(inputs), encoder.encode_frames(inputs))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-B-16"])
def test_the_papers_backbones_train(name, tiny_corpus, tmp_path):
    """Random weights of their shapes: one step, then written and loaded."""
    torch.manual_seed(0)
    save_file(open_clip.create_model(name, force_quick_gelu=True).state_dict(), tmp_path / "clip.safetensors")
    encoder = load_encoder(f"{name}/{tmp_path / 'clip.safetensors'}", device="cpu")
    assert encoder.dim == 512
    data = joint_data(open_corpus(str(tiny_corpus)), QUICK, encoder, World())
    config = replace(QUICK, max_steps=1, micro_batch=2, checkpoint_activations=True)
    result = train_jointly(ModelConfig("dits"), config, encoder, data, tmp_path / "run")
    write_encoder(encoder, tmp_path / "encoder")
    again = load_encoder(f"local-dir:{tmp_path / 'encoder'}", device="cpu")
    assert torch.equal(again.fingerprint(), encoder.fingerprint())
    assert result.history[0]["step"] == 1


# --- Several processes ---


@pytest.mark.slow
def test_two_processes_train_as_one(sources, tmp_path):
    """Through the command line, with decoding workers: the same losses and metrics, and only one process writes."""
    common = ["train", "xpool", *FLAGS[:1], *FLAGS[3:], *RATES, *sources, "--epochs", "3", "--dropout", "0.3"]
    assert main([*common, "--workers", "0", "--out", str(tmp_path / "one")]) == 0
    done = torchrun(2, "-m", "dits", *common, "--workers", "1", "--device", "cpu", "--out", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Wrote the weights") == 1
    one, two = (header_of(tmp_path / name / "xpool.safetensors") for name in ("one", "two"))
    assert two["training"]["processes"] == 2
    assert two["metric"]["loss"] == pytest.approx(one["metric"]["loss"], abs=1e-4)
    assert two["metric"]["step"] == one["metric"]["step"]
    ours, theirs = (load_file(tmp_path / name / "run/state.safetensors") for name in ("one", "two"))
    for key in ours:
        if key.startswith("model."):
            torch.testing.assert_close(ours[key], theirs[key], atol=2e-4, rtol=1e-3)


@pytest.mark.slow
def test_a_number_of_processes_that_does_not_divide_the_batch_is_reported_once(sources, tmp_path):
    done = torchrun(3, "-m", "dits", "train", "xpool", *FLAGS, *sources, "--device", "cpu", "--out", tmp_path / "out")
    assert done.returncode != 0
    assert done.stderr.count("A batch of 4 pairs cannot be shared by 3 processes") == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_training_on_a_gpu(tiny_folder, tiny_corpus, tmp_path):
    encoder = load_encoder(f"local-dir:{tiny_folder}", device="cuda")
    data = joint_data(open_corpus(str(tiny_corpus)), QUICK, encoder, World(device="cuda"))
    config = replace(QUICK, precision="bf16", micro_batch=2, workers=1)
    result = train_jointly(XPOOL, config, encoder, data, tmp_path, world=World(device="cuda"))
    assert len(result.history) == 2
