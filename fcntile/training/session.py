"""The updates of a run, from where it stands to its end, and what is kept of them."""

import hashlib
import json
import math
import shutil
import signal
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rasterio.windows import Window

from fcntile.errors import ModelError, OutputError, Stopped
from fcntile.files import whole_file
from fcntile.inference.heap import keep_freed_memory
from fcntile.models.model_file import load_model, save_model
from fcntile.training.checkpoint import read_state
from fcntile.training.dataset import Dataset
from fcntile.training.loader import Sample, Windows, load
from fcntile.training.optimize import learning_rate
from fcntile.training.run_folder import Row, RunFolder
from fcntile.training.trainer import Trainer
from fcntile.training.validation import Validation

READERS = 4  # threads that read windows beside a net on CPUs, at most
ROWS = 200  # of metrics.csv in a run, beside those of validations
CHECKPOINT_SECONDS = 600  # from one checkpoint to the next, if no validation comes first


class Session:
    """A run while it is worked on.

    Args:
        folder: of the run.
        trainer: the net.
        windows: to train on.
        held_out: to validate on.
        dataset: of both.
        progress: called after every update.

    Attributes:
        done: updates so far.
        best_step: updates before the best validation.
        best_scores: of that validation; None before the first.
        seconds: wall time so far, of all sessions.
    """

    def __init__(
        self,
        folder: RunFolder,
        trainer: Trainer,
        windows: Windows,
        held_out: Validation,
        dataset: Dataset,
        progress: Callable[..., None],
    ) -> None:
        self.folder, self.trainer = folder, trainer
        self.done, self.seconds = 0, 0.0
        self.best_step = 0
        self.best_scores: dict[str, Any] | None = None
        self._windows, self._held_out, self._dataset = windows, held_out, dataset
        self._progress = progress
        self._config = ""  # its hash
        self._rows: list[Row] = []
        self._losses: list[float] = []  # since the last row
        self._busy, self._first = 0.0, 0  # seconds of updates of this session, and their start

    def open(
        self,
        config: dict[str, Any],
        held_out: Sequence[tuple[int, Window]],
        *,
        resume: bool,
        overwrite: bool,
    ) -> None:
        """Begin a run, or go on with the one in the folder.

        Args:
            config: all that decides what the run does.
            held_out: raster and window of the ground for validation.
            resume: go on, if there is a run.
            overwrite: replace it.

        Raises:
            OptionError: if that one was asked for with other options.
            ModelError: if its checkpoint or its best model is damaged, or of another run.
            OutputError: if there is one, and it is neither to go on nor to be replaced.
        """
        folder, group = self.folder, self.trainer.group
        text = json.dumps(config, sort_keys=True)
        self._config = hashlib.sha256(text.encode()).hexdigest()
        goes_on, is_used = resume and folder.checkpoint.exists(), folder.is_used
        group.wait()  # until all have looked
        if goes_on:
            folder.check_config(config)
            self._restore()
        elif is_used and not (overwrite or resume):
            raise OutputError(
                f"the folder {folder.path} holds a run: go on with it by --resume, or "
                "replace it by --overwrite"
            )
        elif group.is_first:
            folder.clear()
            folder.write_config(config)
            folder.write_split(self._dataset, held_out)
        if not group.agree(self.done, self.trainer.plan.device):
            raise OutputError(
                f"the processes find different checkpoints in {folder.path}: put the run folder "
                "where all machines see it, with --run"
            )
        group.wait()

    def _restore(self) -> None:
        state = read_state(self.folder.checkpoint)
        if state["config"] != self._config:
            raise ModelError(
                f"the checkpoint {self.folder.checkpoint} is of another run than the config.json "
                "beside it: begin the run anew with --overwrite"
            )
        self.trainer.load(self.folder.checkpoint, state)
        self.done, self.seconds = state["done"], state["seconds"]
        self.best_step, self.best_scores = state["best_step"], state["best_scores"]
        self._rows, self._losses = state["rows"], state["losses"]
        if self.best_step:
            self._check_best()

    def _check_best(self) -> None:
        try:
            load_model(self.folder.best)
        except ModelError as error:
            raise ModelError(
                f"the best model of the run is damaged: {error}; begin the run anew with "
                "--overwrite"
            ) from error

    def run(self, signals: list[int]) -> None:
        """Update the weights until all is done, or a signal has come.

        Args:
            signals: numbers of those that have come; more may be added at any time.

        Raises:
            ModelError: if the loss becomes infinite or undefined.
            OutputError: if something cannot be written.
            Stopped: after a signal, when a checkpoint is written.
        """
        trainer, settings = self.trainer, self.trainer.settings
        device = trainer.plan.device
        if device.type == "cpu":
            keep_freed_memory()
        self._use_threads()
        start, before, self._first = time.perf_counter(), self.seconds, self.done
        saved = start
        with closing(self._batches()) as batches:
            while self.done < settings.steps:
                begin = time.perf_counter()
                loss, norm = trainer.step(self.done, batches)
                self._check(loss, norm)
                self.done += 1
                self._losses.append(loss)
                self._busy += time.perf_counter() - begin
                is_last = self.done == settings.steps
                is_validation = is_last or self.done % settings.validate_every == 0
                if is_validation or self.done % max(1, settings.steps // ROWS) == 0:
                    self._add_row(validate=is_validation)
                self.seconds = before + time.perf_counter() - start
                is_stopped = trainer.group.any(bool(signals), device)
                is_late = trainer.group.any(
                    time.perf_counter() - saved > CHECKPOINT_SECONDS, device
                )
                if is_validation or is_stopped or is_late:
                    self._save()
                    saved = time.perf_counter()
                self._report(loss)
                if is_stopped and not is_last:
                    raise self._stopped(signals[0] if signals else signal.SIGTERM)

    def finish(self, output: Path) -> None:
        """Write the model file: the best model, or the last one if nothing was held out.

        Raises:
            OutputError: if it cannot be written.
        """
        if not self.trainer.group.is_first:
            return
        with whole_file(output) as written:
            shutil.copyfile(self.folder.best, written)

    @property
    def loss(self) -> float:
        """Mean of the last updates' losses."""
        return float(self._rows[-1]["loss"] or 0) if self._rows else math.nan

    @property
    def samples_per_second(self) -> float:
        """Training windows a second, in the time between validations of this session."""
        settings = self.trainer.settings
        samples = (self.done - self._first) * settings.batch_size * settings.accumulate
        return samples / self._busy if self._busy else 0.0

    def _use_threads(self) -> None:
        plan = self.trainer.plan
        if plan.device.type == "cpu":
            torch.set_num_threads(plan.threads)

    def _batches(self) -> Generator[Sample, None, None]:
        """Yield the batches of this process, from where the run stands."""
        settings, group = self.trainer.settings, self.trainer.group
        share = settings.batch_size // group.size
        first, last = (n * settings.accumulate for n in (self.done, settings.steps))
        starts = (n * settings.batch_size + group.rank * share for n in range(first, last))
        plan = self.trainer.plan
        on_gpu = plan.device.type == "cuda"  # where threads have nothing else to do
        readers = plan.threads if on_gpu else min(READERS, plan.threads)
        return load(self._windows, (range(s, s + share) for s in starts), readers, pin=on_gpu)

    def _check(self, loss: float, norm: float) -> None:
        """Raise ModelError if an update could not be made."""
        if math.isfinite(loss) and math.isfinite(norm):
            return
        saved = "there is no checkpoint yet"
        if self.folder.checkpoint.exists():
            saved = f"the last good checkpoint is {self.folder.checkpoint}"
            if self.folder.best.exists():
                saved += f", and a model to begin from with --init is {self.folder.best}"
        what = f"the loss is {loss}" if not math.isfinite(loss) else "the gradient is infinite"
        raise ModelError(
            f"{what} in step {self.done + 1}: begin anew with a smaller --lr (it is "
            f"{learning_rate(self.done, self.trainer.settings):.3g} now), a longer --warmup, or "
            f"--precision fp32; {saved}"
        )

    def _add_row(self, *, validate: bool) -> None:
        settings = self.trainer.settings
        row: Row = {
            "step": self.done,
            "seconds": round(self.seconds, 1),
            "samples_per_second": round(self.samples_per_second, 1),
            "lr": learning_rate(self.done - 1, settings),
            "loss": float(np.mean(self._losses)),
        }
        self._losses = []
        if validate:
            row |= self._validate()
            self._use_threads()  # the engine has left one
        self._rows.append(row)
        if validate and self.trainer.group.is_first:
            self.folder.write_metrics(self._rows)

    def _validate(self) -> Row:
        """Score the model on the ground held out, and keep it if it is the best so far."""
        trainer, group = self.trainer, self.trainer.group
        model = trainer.model
        group.copy_first(model.net.buffers())  # on CPUs each process has statistics of its own
        found = self._held_out.scores(model, trainer.plan, group)
        if found is None:  # nothing is held out, or no pixel of it has a class
            self._keep_best(None)
            return {}
        if self.best_scores is None or found["miou"] >= self.best_scores["miou"]:
            self._keep_best(found)
        if group.is_first:
            picture = self.folder.path / "samples" / f"step_{self.done:06d}.png"
            self._held_out.draw(picture, model, trainer.plan)
        return {
            "val_miou": found["miou"],
            "val_pixel_accuracy": found["pixel_accuracy"],
            **{f"val_iou {name}": iou for name, iou in found["iou"].items()},
        }

    def _keep_best(self, scores: dict[str, Any] | None) -> None:
        self.best_step, self.best_scores = self.done, scores
        if not self.trainer.group.is_first:
            return
        card = self.trainer.card
        found = {"best_step": self.done} | ({"val": scores} if scores else {})
        card = replace(card, training={**card.training, **found})
        save_model(self.folder.best, self.trainer.model.net, card)

    def _save(self) -> None:
        if self.trainer.group.is_first:
            state = {
                "config": self._config,
                "done": self.done,
                "seconds": self.seconds,
                "best_step": self.best_step,
                "best_scores": self.best_scores,
                "rows": self._rows,
                "losses": self._losses,
            }
            self.trainer.save(self.folder.checkpoint, state)
        self.trainer.group.wait()

    def _report(self, loss: float) -> None:
        if not self.trainer.group.is_first:
            return
        facts = {"loss": round(loss, 4), "samples_per_second": round(self.samples_per_second, 1)}
        last = next((r["val_miou"] for r in reversed(self._rows) if "val_miou" in r), None)
        if last is not None:
            facts["val_miou"] = round(last, 4)
        self._progress(self.done, self.trainer.settings.steps, start=self._first, **facts)

    def _stopped(self, signum: int) -> Stopped:
        return Stopped(
            f"stopped by {signal.Signals(signum).name} after step {self.done} of "
            f"{self.trainer.settings.steps}: the same command with --resume goes on",
            signum,
        )
