"""Training end to end from video: encoder and retrieval model together, in one process or several.

All random draws (batches, crops, dropout and noise) follow from the seed and the step. A run that is resumed after a
kill therefore continues as if uninterrupted, and the processes of a run agree without communication.
"""

import hashlib
import math
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dits.common.errors import CheckpointError, DitsError, InputError
from dits.corpora.clip_loader import ClipReader, LoadedClip, raise_if_error, read_clips
from dits.corpora.corpus import Clip
from dits.corpora.embeddings import embed_clips
from dits.encoders.folder import check_writable, write_encoder
from dits.encoders.openclip import OpenClipEncoder, load_encoder
from dits.evaluation.metrics import evaluate_scores, selection_key
from dits.models.checkpoint import CheckpointHeader, save_checkpoint
from dits.models.retrieval import ModelConfig, RetrievalModel
from dits.scoring.gallery import build_gallery
from dits.training.ignored_pairs import IgnoredPairs
from dits.training.joint.config import JointTrainingConfig
from dits.training.joint.data import CLIP, STEP, JointData, derived_seed, plan_steps
from dits.training.joint.distributed import World, gather
from dits.training.joint.model import Batch, GradientStep, JointModel
from dits.training.joint.run_log import RunLog
from dits.training.joint.state import JointState
from dits.training.optimisation import parameter_groups, set_learning_rates, trainable_parameters, warmup_cosine
from dits.training.trainer import Report, TrainingResult, start_from

ENCODER_FOLDER = "encoder"

_LOG_EVERY = 10  # steps between records of loss and speed
_NOT_IN_KEY = ("workers", "prefetch", "save_every", "decode_seconds")  # a resumed run may change these


def train_jointly(
    model_config: ModelConfig,
    config: JointTrainingConfig,
    encoder: OpenClipEncoder,
    data: JointData,
    run: Path,
    *,
    world: World | None = None,
    init: RetrievalModel | None = None,
    log_dir: Path | None = None,
    report: Report = lambda line: None,
) -> TrainingResult:
    """Trains an encoder, in place, and a retrieval model on it; both end with the weights of the best evaluation.

    Best is the highest sum of the text-to-video recalls at 1, 5 and 10, then the lowest mean rank. The result has the
    records of evaluations.

    Args:
        run: a folder for state and records, shared by all machines; a run in this folder is resumed.
        world: the processes that train together; by default only this one.
        init: a trained model to start from.
        log_dir: TensorBoard's folder.
        report: called with every line of progress, in the primary process.

    Raises:
        InputError: the batch size cannot be divided by the number of processes, or a batch cannot be filled.
        EncoderError: the encoder cannot be written after training.
        VideoError: a video cannot be decoded.
        CheckpointError: the state in `run` is damaged, or belongs to another run.
        StorageError: `run` cannot be written.
        DitsError: the loss is not finite; the last state stays saved.
    """
    check_writable(encoder)
    trainer = _JointTrainer(model_config, config, encoder, data, run, world or World(), init)
    return trainer.run(log_dir, report)


def write_joint(
    folder: Path, encoder: OpenClipEncoder, result: TrainingResult, data: dict[str, Any], training: dict[str, Any]
) -> str:
    """Writes `folder`/encoder and `folder`/<method>.safetensors, bound to that encoder; returns the encoder's id.

    `data` and `training` go to the header of the weights.

    Raises:
        StorageError: the folder cannot be written, or the disk is full.
    """
    write_encoder(encoder, folder / ENCODER_FOLDER)
    written = load_encoder(f"local-dir:{folder / ENCODER_FOLDER}", device=str(encoder.device))
    header = CheckpointHeader(
        encoder=written.id,
        quick_gelu=written.quick_gelu,
        dim=written.dim,
        config=result.model.config.as_dict(),
        data=data,
        training=training,
        metric=result.best,
    )
    path = folder / f"{result.model.config.method}.safetensors"
    save_checkpoint(path, result.model, header, written.fingerprint())
    return written.id


class _JointTrainer:
    def __init__(
        self,
        model_config: ModelConfig,
        config: JointTrainingConfig,
        encoder: OpenClipEncoder,
        data: JointData,
        run: Path,
        world: World,
        init: RetrievalModel | None,
    ) -> None:
        if config.batch_size % world.size:
            raise InputError(
                f"A batch of {config.batch_size} pairs cannot be shared by {world.size} processes: choose a "
                f"--batch-size that is a multiple of {world.size}, or another number of processes."
            )
        self.config, self.encoder, self.data, self.world = config, encoder, data, world
        self.captions, self.video_of = _captions_and_videos(data.train)
        self.ignored = IgnoredPairs(self.captions, self.video_of, config.ignore)
        self.plan, self.evaluate_after, self.epoch_ends = plan_steps(self.video_of, config)
        head = _initial_head(model_config, config, encoder, init).to(encoder.device)
        self.model = JointModel(encoder, head, world, config.precision, config.alignment_weight)
        if config.checkpoint_activations:
            self.model.checkpoint_activations()
        key = {
            "model": model_config.as_dict(),
            "training": {name: value for name, value in asdict(config).items() if name not in _NOT_IN_KEY},
            "encoder": encoder.id,
            "data": data.digest,
            "start": _digest(head),
        }
        self.optimizer = torch.optim.AdamW(self._groups(), eps=config.adam_epsilon)
        self.state = JointState(self.model, self.optimizer, run, key)

    def run(self, log_dir: Path | None, report: Report) -> TrainingResult:
        """Trains to the end, from the state in the run's folder if there is one."""
        state, world = self.state, self.world
        resumed = state.resume()
        if world.from_primary(state.step) != state.step:
            raise CheckpointError(f"{state.folder} is not the same folder on all machines: choose one that all share.")
        log = RunLog(state.folder / "records.jsonl", state.step, log_dir) if world.primary else None
        if resumed and world.primary:
            report(f"Going on after step {state.step} of the run in {state.folder}.")
        step = GradientStep(self.model, self.config.micro_batch)
        clips = self._read_clips()
        self.model.train()
        try:
            while state.step < len(self.plan) and not self._out_of_patience():
                self._take_step(step, clips, log)
                if state.step in self.evaluate_after:
                    self._evaluate(log, report)
                elif state.step % self.config.save_every == 0 and world.primary:
                    state.save()
        finally:
            clips.close()
            if log:
                log.close()
        if world.primary:
            state.load_best()
        self.model.eval()
        return TrainingResult(self.model.head, state.best, state.history)

    # --- A step ---

    def _take_step(self, step: GradientStep, clips: Iterator[LoadedClip | DitsError], log: RunLog | None) -> None:
        state, config = self.state, self.config
        started = time.perf_counter()
        factor = warmup_cosine(state.step, len(self.plan), config.warmup)
        set_learning_rates(self.optimizer.param_groups, factor)
        self.optimizer.zero_grad()
        loss = step.backward(self._batch(clips), derived_seed(config.seed, STEP, state.step))
        trainable = [parameter for _, parameter in trainable_parameters(self.model)]
        norm = float(nn.utils.clip_grad_norm_(trainable, config.clip_norm))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise DitsError(
                f"The {'gradient' if math.isfinite(loss) else 'loss'} is not finite at step {state.step + 1}: lower "
                f"the learning rates or the noise. The last saved state stays in {state.folder}."
            )
        self.optimizer.step()
        self.model.head.clamp_logit_scale()
        state.step += 1
        state.losses.append(loss)
        if log and state.step % _LOG_EVERY == 0:
            log.write(
                {
                    "step": state.step,
                    "loss": loss,
                    "gradient_norm": norm,
                    "learning_rate": config.learning_rate * factor,
                    "clip_learning_rate": config.clip_learning_rate * factor,
                    "temperature": float(self.model.head.logit_scale.detach().exp()),
                    "pairs_a_second": config.batch_size / (time.perf_counter() - started),
                }
            )

    def _batch(self, clips: Iterator[LoadedClip | DitsError]) -> Batch:
        """This process's share of the next batch, on its device."""
        rows, device = self.plan[self.state.step], self.encoder.device
        own = rows[self.world.share(len(rows))]
        # Clip by clip: pinned pixels are copied to a GPU while the next clip is decoded.
        pixels = [raise_if_error(next(clips)).pixels.to(device, non_blocking=True) for _ in own]
        tokens = self.encoder.tokenize([self.captions[row] for row in own]).to(device)
        ignored = self.ignored.mask(rows)
        return Batch(tokens, torch.stack(pixels), None if ignored is None else ignored.to(device))

    def _read_clips(self) -> Generator[LoadedClip | DitsError]:
        """This process's clips of all remaining steps, prefetched."""
        config = self.config
        reader = ClipReader(self.encoder.transform, config.frames, config.frame_sampling == "random", config.augment)
        pin = self.encoder.device.type == "cuda"
        return read_clips(self.data.train, reader, self._order(), config.workers, config.prefetch, pin)

    def _order(self) -> Iterator[tuple[int, int]]:
        """Numbers of the videos to read, each with its seed."""
        for step in range(self.state.step, len(self.plan)):
            rows = self.plan[step]
            for position in range(len(rows))[self.world.share(len(rows))]:
                seed = derived_seed(self.config.seed, CLIP, step, position)
                yield int(self.video_of[rows[position]]), seed

    def _groups(self) -> list[dict[str, Any]]:
        """CLIP, with the temperature unless this has its own rate and group, and the rest of the retrieval model."""
        c, head = self.config, self.model.head
        clip, temperature = [*self.model.towers.parameters()], [head.logit_scale]
        rest = [parameter for name, parameter in head.named_parameters() if name != "logit_scale"]
        groups = [(clip if c.temperature_rate else clip + temperature, c.clip_learning_rate), (rest, c.learning_rate)]
        own = parameter_groups([(temperature, c.temperature_rate)], 0.0) if c.temperature_rate else []
        return parameter_groups(groups, c.weight_decay, c.decay_vectors) + own

    # --- Evaluation ---

    def _evaluate(self, log: RunLog | None, report: Report) -> None:
        """Measures the weights, saves them if they are the best so far, and saves the state."""
        state, world = self.state, self.world
        metrics = self._metrics()
        epoch = next(n for n, end in enumerate(self.epoch_ends, start=1) if state.step <= end)
        record = {"step": state.step, "epoch": epoch, "loss": float(np.mean(state.losses)), **metrics}
        state.losses = []
        state.history.append(record)
        better = not state.best or selection_key(record) > selection_key(state.best)
        if better:
            state.best = record
        if not (world.primary and log):
            return
        if better:
            state.save_best()
        state.save()
        log.write(record)
        t2v = metrics["t2v"]
        report(
            f"step {state.step}/{len(self.plan)}  epoch {epoch}/{self.config.epochs}  loss {record['loss']:.4f}  "
            f"{self.config.select_on} t2v R@1 {t2v['R@1']:.1f} R@5 {t2v['R@5']:.1f} MnR {t2v['MnR']:.2f}"
        )

    def _metrics(self) -> dict[str, dict[str, float]]:
        """Metrics on the selection split, in both directions; every process embeds a part of the videos."""
        self.model.eval()
        clips, world = self.data.evaluation, self.world
        each = math.ceil(len(clips) / world.size)
        numbers = [min(n, len(clips) - 1) for n in range(world.rank * each, (world.rank + 1) * each)]
        own, _ = embed_clips([clips[n] for n in numbers], self.encoder, workers=self.config.workers)
        frames = gather(own.to(self.encoder.device), world)[: len(clips)].cpu()
        metrics = {}
        if world.primary:
            captions, video_of = _captions_and_videos(clips)
            texts = self.encoder.encode_text(captions)
            metrics = evaluate_scores(build_gallery(self.model.head, frames).scores(texts), video_of)
        self.model.train()
        return world.from_primary(metrics)

    def _out_of_patience(self) -> bool:
        """Whether `patience` evaluations have passed since the best one."""
        since_best = [record["step"] > self.state.best.get("step", 0) for record in self.state.history]
        return bool(self.config.patience) and sum(since_best) >= self.config.patience


def _captions_and_videos(clips: Sequence[Clip]) -> tuple[list[str], np.ndarray]:
    """All captions of clips, and the number of the clip of each."""
    captions = [caption for clip in clips for caption in clip.captions]
    return captions, np.array([n for n, clip in enumerate(clips) for _ in clip.captions])


def _initial_head(
    model_config: ModelConfig, config: JointTrainingConfig, encoder: OpenClipEncoder, init: RetrievalModel | None
) -> RetrievalModel:
    """A retrieval model that starts from `init`, or from CLIP's temperature if there is none."""
    torch.manual_seed(config.seed)
    head = RetrievalModel(model_config)
    if init is None:
        with torch.no_grad():
            head.logit_scale.copy_(encoder.module.logit_scale.reshape(()))
    else:
        start_from(head, init)
    if config.temperature:
        head.set_temperature(config.temperature)
    head.clamp_logit_scale()
    return head


def _digest(module: nn.Module) -> str:
    """A checksum of a module's weights."""
    digest = hashlib.sha256()
    for value in module.state_dict().values():
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
