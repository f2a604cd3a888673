"""Train a reference model: `python -m harness.reference_training.train --minutes 102 --out DIR [--model b]`.

Data-parallel workers of one thread each (CPU), or one worker on an accelerator. Every `--save-seconds` a checkpoint
replaces the last; `--resume` goes on from it: model, optimizers, position in the course; data follow from (seed,
worker, step). The log `log.jsonl` has one line every 30 seconds. After a vision-only stage comes one language stage
whose rate falls to zero.
"""

import argparse
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as distributed
from torch import nn

from harness.reference_training.batches import LENGTH, QUESTIONS, Encoder, TrainingBatch, make_batch
from harness.reference_training.course import Course, Moment
from harness.reference_training.export import export
from harness.reference_training.kinds import KINDS
from harness.reference_training.losses import AuxiliaryHeads, answer_loss, exact_matches, gaze_loss
from harness.reference_training.materials import load_materials
from harness.reference_training.optimizer import Muon, is_hidden_matrix
from harness.reference_training.packed import WORDS
from harness.reference_training.sprites import SpriteBank
from harness.reference_training.training_log import Log
from harness.reference_training.vocabulary import build_processor
from harness.reference_training.words import FAMILIES

CLIP_NORM = 1.0


@dataclass(frozen=True)
class Settings:
    """A training run. minutes: consumed by training, over all sessions; rates are peaks; export_to: None writes
    none. start_from: folder of model A, whose weights model B takes over; None: from nothing. processor_time: minutes
    of processor time of a worker, not by the clock, so that other work on the machine does not shorten the course."""

    out: Path
    minutes: float
    seeing_minutes: float = 9.0
    workers: int = 2
    seed: int = 0
    muon_rate: float = 0.015
    adam_rate: float = 1.5e-3
    muon: bool = True
    device: str = "cpu"
    save_seconds: float = 300.0
    export_to: Path | None = None
    variants: int = 200
    model: str = "a"
    start_from: Path | None = None
    processor_time: bool = False


class Trainer:
    """Model, heads, optimizers, data of one worker, and where in the course it stands."""

    def __init__(self, settings: Settings, rank: int) -> None:
        self.settings, self.rank = settings, rank
        self.course = Course(settings.minutes * 60.0, settings.seeing_minutes * 60.0)
        self.elapsed, self.step_index = 0.0, 0
        self.kind = KINDS[settings.model]
        self.packed = self.kind.packed(self.kind.new(settings.seed, settings.start_from)).to(settings.device)
        torch.manual_seed(settings.seed)
        self.heads = AuxiliaryHeads().to(settings.device)
        self.parameters = [*self.packed.parameters(), *self.heads.parameters()]
        self.optimizers = _optimizers(self.packed, self.heads, settings)
        self.peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers]
        self.materials = load_materials("train")
        bank_rng = np.random.default_rng([settings.seed, rank, 7])
        self.bank = SpriteBank(self.materials, bank_rng, settings.variants, numbers_each=24)
        self.encode = Encoder(build_processor().tokenizer)
        self.layouts: dict[int, Any] = {}
        self.clock = self._now()

    def batch(self, moment: Moment) -> TrainingBatch:
        """The batch of this worker and step."""
        rng = np.random.default_rng([self.settings.seed, self.rank, self.step_index])
        crowded = [bool(v) for v in rng.random(moment.images) < moment.crowded_share]
        return _to(make_batch(self.materials, self.bank, self.encode, rng, moment.side, crowded), self.settings.device)

    def tables(self, side: int) -> Any:
        """The layout for one image size, made once."""
        if side not in self.layouts:
            made = self.kind.layout(self.packed.native.to("cpu"), side, QUESTIONS, LENGTH)
            self.packed.native.to(self.settings.device)
            self.layouts[side] = _to(made, self.settings.device)
        return self.layouts[side]

    def step(self) -> dict:
        """One optimizer step; returns its measurements."""
        started = time.perf_counter()
        moment = self.course.at(self.elapsed)
        batch = self.batch(moment)
        made = time.perf_counter()
        for parameter in self.parameters:
            parameter.grad = None
        tables = self.tables(moment.side)
        with torch.autocast(self.settings.device, torch.bfloat16):
            states, tokens, deep = self.packed.see(batch.patches, tables)
            dense, accuracy = self.heads(states, tokens, batch)
            watched = {}
            logits = (
                self.packed.answer(tokens, deep, batch.questions, tables, watched if moment.gaze_weight else None)
                if moment.speaking
                else None
            )
        loss = moment.auxiliary_weight * dense
        counts, answers, gaze, word = torch.zeros(len(FAMILIES), 2), None, None, None
        if logits is not None:
            answers = answer_loss(logits, batch)
            loss = loss + answers
            if watched:
                gaze = gaze_loss(watched, batch)
                word = self.heads.word_loss(watched[WORDS], batch)
                loss = loss + moment.gaze_weight * (gaze + word)
            counts = exact_matches(logits.detach(), batch)
        loss.backward()
        self._agree()
        norm = nn.utils.clip_grad_norm_([p for p in self.parameters if p.grad is not None], CLIP_NORM)
        for optimizer, peaks in zip(self.optimizers, self.peaks, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * moment.rate
            optimizer.step()
        self.step_index += 1
        return {
            "elapsed_s": self.elapsed,
            "step": self.step_index,
            "side": moment.side,
            "images": moment.images * self.settings.workers,
            "rate": moment.rate,
            "dense": dense.item(),
            "answer": None if answers is None else answers.item(),
            "gaze": None if gaze is None else gaze.item(),
            "word": None if word is None else word.item(),
            "norm": float(norm),
            "data_s": made - started,
            "counts": counts,
            "labels": accuracy,
        }

    def _now(self) -> float:
        return time.process_time() if self.settings.processor_time else time.perf_counter()

    def _agree(self) -> None:
        """Average gradients over workers, and with them the clock, so that all follow the same course."""
        now = self._now()
        elapsed, self.clock = self.elapsed + now - self.clock, now
        if self.settings.workers > 1:
            held = [p for p in self.parameters if p.grad is not None]
            flat = torch.cat([*(p.grad.flatten() for p in held), torch.tensor([elapsed])])
            distributed.all_reduce(flat)
            flat /= self.settings.workers
            elapsed = float(flat[-1])
            for parameter, part in zip(held, flat[:-1].split([p.numel() for p in held]), strict=True):
                parameter.grad = part.view_as(parameter)
        self.elapsed = elapsed

    def state(self) -> dict:
        """All that resuming needs."""
        return {
            "model": self.packed.native.state_dict(),
            "heads": self.heads.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "elapsed": self.elapsed,
            "step": self.step_index,
        }

    def load(self, state: dict) -> None:
        """Take up a saved state."""
        self.packed.native.load_state_dict(state["model"])
        self.heads.load_state_dict(state["heads"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.elapsed, self.step_index = state["elapsed"], state["step"]
        self.clock = self._now()


def _optimizers(packed: nn.Module, heads: AuxiliaryHeads, settings: Settings) -> list[torch.optim.Optimizer]:
    named = list(packed.named_parameters())
    hidden = [p for name, p in named if settings.muon and is_hidden_matrix(name, p)]
    chosen = {id(p) for p in hidden}
    rest = [p for _, p in named if id(p) not in chosen] + list(heads.parameters())
    matrices, vectors = [p for p in rest if p.dim() > 1], [p for p in rest if p.dim() < 2]
    adam = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.02}, {"params": vectors, "weight_decay": 0.0}],
        lr=settings.adam_rate,
        betas=(0.9, 0.98),
    )
    return [adam, Muon(hidden, settings.muon_rate, weight_decay=0.02, workers=settings.workers)] if hidden else [adam]


def _to(value, device: str):
    """A dataclass of tensors and dictionaries of tensors on `device`."""

    def move(field):
        if isinstance(field, dict):
            return {name: tensor.to(device) for name, tensor in field.items()}
        return field.to(device) if isinstance(field, torch.Tensor) else field

    return type(value)(**{name: move(field) for name, field in vars(value).items()})


def work(rank: int, settings: Settings, resume: bool, parent: int) -> None:
    """One worker's whole run. Rank 0 logs, saves and exports. A worker whose parent process died stops."""
    if settings.device == "cpu":
        torch.set_num_threads(1)
    if settings.workers > 1:
        rendezvous = f"file://{(settings.out / 'rendezvous').resolve()}"
        distributed.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=settings.workers)
    trainer = Trainer(settings, rank)
    checkpoint = settings.out / "checkpoint.pt"
    if resume:
        trainer.load(torch.load(checkpoint, map_location=settings.device, weights_only=True))
    log = Log(settings.out / "log.jsonl") if rank == 0 else None
    saved = trainer.elapsed
    while trainer.elapsed < trainer.course.seconds and (settings.workers == 1 or os.getppid() == parent):
        measured = trainer.step()
        if log is None:
            continue
        log.add(measured)
        if trainer.elapsed - saved >= settings.save_seconds or trainer.elapsed >= trainer.course.seconds:
            saved = trainer.elapsed
            save(trainer, checkpoint)
    if log is not None:
        log.write()
    if settings.workers > 1:
        distributed.destroy_process_group()


def save(trainer: Trainer, checkpoint: Path) -> None:
    """Replace the checkpoint in one move, and the exported folder where one is wanted."""
    scratch = checkpoint.with_suffix(".new")
    torch.save(trainer.state(), scratch)
    os.replace(scratch, checkpoint)
    if trainer.settings.export_to is not None:
        export(
            {name: tensor.cpu() for name, tensor in trainer.packed.native.state_dict().items()},
            trainer.settings.export_to,
            trainer.settings.model,
        )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoint and log")
    parser.add_argument("--minutes", type=float, default=95.0, help="training minutes in all")
    parser.add_argument("--seeing-minutes", type=float, default=9.0, help="of which vision only")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", choices=sorted(KINDS), default="a")
    parser.add_argument("--start-from", type=Path, default=None, help="model A's folder, for model B")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--adam-only", action="store_true", help="AdamW for every parameter")
    parser.add_argument("--adam-rate", type=float, default=1.5e-3)
    parser.add_argument("--muon-rate", type=float, default=0.015)
    parser.add_argument("--save-seconds", type=float, default=300.0)
    parser.add_argument("--export-to", type=Path, default=None, help="folder to export the model into at every save")
    parser.add_argument("--processor-time", action="store_true", help="count minutes of processor time of a worker")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    asked = vars(parser.parse_args())
    resume, muon = asked.pop("resume"), not asked.pop("adam_only")
    settings = Settings(muon=muon, **asked)
    settings.out.mkdir(parents=True, exist_ok=True)
    (settings.out / "rendezvous").unlink(missing_ok=True)
    if settings.workers == 1:
        work(0, settings, resume, os.getpid())
    else:
        torch.multiprocessing.spawn(work, args=(settings, resume, os.getpid()), nprocs=settings.workers)


if __name__ == "__main__":
    main()
