import pytest

from fcntile.errors import ModelError
from fcntile.models import create_model, list_models


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ModelError, match=r"'unet'.*fcn16s, fcn2s-small, fcn32s, fcn8s"):
        create_model("unet", 3, 2)


@pytest.mark.parametrize(
    "options", [{"depth": 3}, {"width": -1}, {"width": "wide"}, {"blocks": 2}, {"blocks": 6}]
)
def test_an_impossible_option_is_refused(options):
    with pytest.raises(ModelError, match="fcn8s cannot be built"):
        create_model("fcn8s", 3, 2, **options)


@pytest.mark.parametrize("name", list_models())
def test_every_net_says_how_it_must_be_tiled(name):
    options = {"width": 1, "head": 1} if name.startswith("fcn") else {}
    net = create_model(name, 3, 2, **options)
    assert net.stride >= 1
    assert net.halo % net.stride == 0
