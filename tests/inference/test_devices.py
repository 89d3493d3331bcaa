import pytest
import torch

from fcntile.errors import OptionError, OutOfMemoryError
from fcntile.inference.devices import available_cpus, make_plan, out_of_memory


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(OptionError, match="no device is called 'gpu'"):
        make_plan(device="gpu")
    if not torch.cuda.is_available():
        with pytest.raises(OptionError, match="there is no cuda device here"):
            make_plan(device="cuda")


def test_plans_on_the_cpu_follow_the_threads():
    plan = make_plan(device="cpu", threads=3)
    assert (plan.workers, plan.batch_size, plan.precision) == (3, 1, torch.float32)
    assert make_plan(device="cpu").workers == available_cpus()


@pytest.mark.parametrize("wish", [{"threads": 10**20}, {"batch_size": 10**20}, {"threads": 0}])
def test_numbers_that_no_machine_has_are_refused(wish):
    with pytest.raises(OptionError, match="is not from 1 to"):
        make_plan(device="cpu", **wish)


def test_lack_of_memory_says_what_would_help():
    cpu, words = torch.device("cpu"), ("8 windows", "use a smaller --window")
    message = "^cpu has too little memory for 8 windows: use a smaller --window$"
    with pytest.raises(OutOfMemoryError, match=message), out_of_memory(cpu, *words):
        torch.empty(1 << 50)
    with pytest.raises(RuntimeError, match="shape"), out_of_memory(cpu, *words):
        torch.ones(3).reshape(2)
