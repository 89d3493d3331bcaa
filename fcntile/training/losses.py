"""Losses over labelled pixels: cross-entropy, dice, focal, and weighted sums of them.

Each is a function of sums over pixels. In a run of several processes these sums are taken over all
of them, so that the gradient is that of one process with the joined batch.
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcntile.raster.classes import UNLABELLED

FOCUS = 2.0  # gamma of the focal loss


class Loss(nn.Module):
    """A weighted sum of losses.

    - "ce": cross-entropy, averaged over labelled pixels by their class weight.
    - "dice": 1 - 2 |p t| / (|p| + |t|) of soft class areas, averaged over the classes with labelled
      pixels in the batch (Milletari et al., arXiv 1606.04797, without the squares).
    - "focal": cross-entropy times (1 - p)^2 (Lin et al., arXiv 1708.02002), averaged likewise.

    Args:
        terms: weight of each loss by name.
        class_weights: (classes,) float32, for cross-entropy and focal; None for ones.
        total: sums a tensor over all processes, with gradient.

    Shape:
        (N, classes, H, W) logits, (N, H, W) int64 labels with UNLABELLED -> ()
    """

    def __init__(
        self,
        terms: Mapping[str, float],
        class_weights: Tensor | None = None,
        total: Callable[[Tensor], Tensor] = lambda sums: sums,
    ) -> None:
        super().__init__()
        self._terms, self._total = terms, total
        self.register_buffer("class_weights", class_weights)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of a batch; 0 if nothing in it is labelled."""
        logits = logits.float()
        losses = {"ce": self._cross_entropy, "dice": self._dice, "focal": self._focal}
        terms = [w * losses[name](logits, labels) for name, w in self._terms.items()]
        return torch.stack(terms).sum()

    def _weights(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the weight of each pixel: of its class, 0 if it is unlabelled."""
        labelled = labels != UNLABELLED
        if not isinstance(self.class_weights, Tensor):
            return labelled.to(logits.dtype)
        weights: Tensor = self.class_weights[labels.where(labelled, 0)] * labelled
        return weights

    def _mean(self, loss: Tensor, weights: Tensor) -> Tensor:
        sums = self._total(torch.stack([loss, weights.sum()]))
        return sums[0] / sums[1].detach().clamp(min=1e-12)

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        weight = self.class_weights if isinstance(self.class_weights, Tensor) else None
        loss = F.cross_entropy(logits, labels, weight, ignore_index=UNLABELLED, reduction="sum")
        return self._mean(loss, self._weights(logits, labels))

    def _focal(self, logits: Tensor, labels: Tensor) -> Tensor:
        weights = self._weights(logits, labels)
        log_p = _of_labels(logits.log_softmax(1), labels)
        return self._mean(-(weights * (1 - log_p.exp()) ** FOCUS * log_p).sum(), weights)

    def _dice(self, logits: Tensor, labels: Tensor) -> Tensor:
        classes = logits.shape[1]
        labelled = labels != UNLABELLED
        p = logits.softmax(1)
        target = labels[labelled]
        zeros = p.new_zeros(classes)
        hit = zeros.index_add(0, target, _of_labels(p, labels)[labelled])
        area = zeros.index_add(0, target, torch.ones_like(target, dtype=p.dtype))
        soft = (p * labelled[:, None]).sum((0, 2, 3))
        hit, area, soft = self._total(torch.stack([hit, area, soft]))
        dice = 2 * hit / (area + soft).clamp(min=1e-12)
        present = (area > 0).to(p.dtype)
        loss: Tensor = ((1 - dice) * present).sum() / present.sum().clamp(min=1)
        return loss


def _of_labels(values: Tensor, labels: Tensor) -> Tensor:
    """Return each pixel's value of its own class; anything where it is unlabelled.

    Shape:
        (N, classes, H, W), (N, H, W) -> (N, H, W)
    """
    index = labels.where(labels != UNLABELLED, 0)[:, None]
    return values.gather(1, index)[:, 0]


def median_frequency(pixels: Tensor) -> Tensor:
    """Return class weights that balance rare classes: the median class's pixels over each one's.

    Eigen and Fergus (arXiv 1411.4734), here by labelled pixels of the whole training ground, and
    kept between 1/10 and 10.

    Args:
        pixels: (classes,) labelled pixels, some of them 0.
    """
    seen = pixels[pixels > 0].double()
    weights = (seen.median() / pixels.double().clamp(min=1)).clamp(0.1, 10)
    return weights.float()
