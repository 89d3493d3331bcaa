import pytest
import torch

from fcntile.errors import OutOfMemoryError
from fcntile.inference.engine import out_of_memory


def test_lack_of_memory_says_what_would_help():
    cpu = torch.device("cpu")
    with pytest.raises(OutOfMemoryError, match="smaller --batch-size"), out_of_memory(cpu, 4):
        torch.empty(1 << 50)
    with pytest.raises(RuntimeError, match="shape"), out_of_memory(cpu, 4):
        torch.ones(3).reshape(2)
