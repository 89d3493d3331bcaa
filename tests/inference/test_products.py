import numpy as np
import pytest
import torch

from fcntile.inference.products import best_class, make_products, quantise, reduce


@pytest.mark.parametrize("classes", [1, 2, 6, 254, 255, 256, 300, 32768])
def test_the_best_class_is_that_of_argmax(classes):
    logits = torch.randint(0, 9, (classes, 20, 30)).float()  # with many ties
    logits[-1, :10] = 9  # where the last class wins
    best, positions = best_class(logits)
    assert torch.equal(best, logits.amax(0))
    assert np.array_equal(positions.numpy(), logits.numpy().argmax(0))
    assert positions.dtype == (torch.uint8 if classes <= 255 else torch.int16)


