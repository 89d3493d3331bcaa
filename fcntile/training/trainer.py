"""One update of a net's weights, and all the state that the next one needs."""

import math
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fcntile.errors import OptionError
from fcntile.inference.devices import Plan, exact_fp32, out_of_memory
from fcntile.models.card import Card
from fcntile.models.model_file import Model
from fcntile.models.registry import Net
from fcntile.training.checkpoint import load_checkpoint, save_checkpoint
from fcntile.training.distributed import Group
from fcntile.training.loader import Sample
from fcntile.training.losses import Loss, median_frequency
from fcntile.training.optimize import (
    learning_rate,
    make_optimizer,
    moving_average,
    set_learning_rate,
)
from fcntile.training.recipes import Settings, parse_class_weights, parse_loss

MIN_SCALE = 1.0  # of the loss in fp16: gradients that are infinite below it always are


class Trainer:
    """A net in training.

    Args:
        net: on the CPU, with the weights to start from.
        card: of the model that comes out.
        settings: how to train.
        class_weights: (classes,) for the loss, or None.
        plan: where to compute.
        group: the processes that share the run.
    """

    def __init__(
        self,
        net: Net,
        card: Card,
        settings: Settings,
        class_weights: Tensor | None,
        plan: Plan,
        group: Group,
    ) -> None:
        self.card, self.settings, self.plan, self.group = card, settings, plan, group
        device = plan.device
        if group.size > 1 and device.type == "cuda":
            net = nn.SyncBatchNorm.convert_sync_batchnorm(net)  # type: ignore[no-untyped-call]
        exact_fp32(device)
        self.net = net.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = moving_average(self.net, settings.ema) if settings.ema else None
        self.loss = Loss(parse_loss(settings.loss), class_weights, group.total).to(device)
        self.optimizer = make_optimizer(self.net, settings)
        self.scaler = torch.amp.GradScaler(device.type, enabled=plan.precision == torch.float16)
        self._forward: nn.Module = self.net
        if group.size > 1:
            self._forward = DistributedDataParallel(self.net)

    def step(self, number: int, batches: Iterator[Sample]) -> tuple[float, float]:
        """Update the weights once; not if the loss or its gradient is infinite or undefined.

        Args:
            number: of the update, from 0.
            batches: as many are taken as are accumulated.

        Returns:
            The loss, and the norm of its gradient; the update was made if both are finite.
        """
        settings, group = self.settings, self.group
        torch.manual_seed((settings.seed << 32) + number * group.size + group.rank)  # for dropout
        set_learning_rate(self.optimizer, learning_rate(number, settings))
        self.net.train()
        self.optimizer.zero_grad()
        total = 0.0
        for _ in range(settings.accumulate):
            loss = self._backward(*next(batches))
            total += loss.item() / settings.accumulate
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.net.parameters(), settings.clip_grad or math.inf)
        is_finite = math.isfinite(total) and bool(norm.isfinite())
        if is_finite or (self.scaler.is_enabled() and math.isfinite(total)):
            self.scaler.step(self.optimizer)  # which skips what fp16 made infinite, and scales down
            self.scaler.update()
            if self.scaler.get_scale() >= MIN_SCALE:
                norm = norm.nan_to_num(posinf=0)
        if is_finite and self.average is not None:
            self.average.update_parameters(self.net)
        return total, norm.item()

    def _backward(self, x: Tensor, y: Tensor) -> Tensor:
        device, precision = self.plan.device, self.plan.precision
        what = f"{len(x)} window(s) at a time"
        with out_of_memory(device, what, "use a smaller --batch-size or --window"):
            x, y = (t.to(device, non_blocking=True) for t in (x, y))
            half = precision != torch.float32
            with torch.autocast(device.type, precision) if half else nullcontext():
                loss: Tensor = self.loss(self._logits(x), y)
            scaled = self.scaler.scale(loss / self.settings.accumulate)
            scaled.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _logits(self, x: Tensor) -> Tensor:
        try:
            logits: Tensor = self._forward(x)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise OptionError(
                f"a batch of {len(x)} window(s) of {x.shape[-1]} px leaves a batch norm of "
                f"{self.card.arch} a single pixel, which has no deviation: use a larger --window "
                "or --batch-size"
            ) from error
        return logits

    @property
    def model(self) -> Model:
        """The model so far, in evaluation mode: batch norms use their running statistics."""
        net: Any = self.net if self.average is None else self.average.module
        return Model(net.eval(), self.card, sha256="")

    def save(self, path: Path, state: dict[str, Any]) -> None:
        """Write a checkpoint, with `state` beside the weights.

        Raises:
            OutputError: if it cannot be written.
        """
        state = {**state, "scaler": self.scaler.state_dict()}
        save_checkpoint(path, self._modules(), self.optimizer, state)

    def load(self, path: Path, state: dict[str, Any]) -> None:
        """Go back to a checkpoint and the state in it.

        Raises:
            ModelError: if it is not of such a net.
        """
        load_checkpoint(path, self._modules(), self.optimizer)
        self.scaler.load_state_dict(state["scaler"])

    def _modules(self) -> dict[str, nn.Module]:
        return {"net": self.net} | ({} if self.average is None else {"average": self.average})


def class_weights(wish: str, pixels: Tensor) -> Tensor | None:
    """Return the weights of classes that a setting means.

    Args:
        wish: "none", "auto", or numbers joined by commas.
        pixels: (classes,) labelled pixels.

    Raises:
        OptionError: if there are more or fewer numbers than classes.
    """
    weights = parse_class_weights(wish)
    if weights == "none":
        return None
    if weights == "auto":
        return median_frequency(pixels)
    if len(weights) != len(pixels):
        raise OptionError(
            f"class weights {wish} are {len(weights)} numbers for {len(pixels)} classes: give one "
            "for each class, in the order of their values"
        )
    return torch.tensor(weights)
