import pytest

from fcntile.errors import ModelError
from fcntile.models import create_model


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(
        ModelError, match=r"'unet'.*fcn16s, fcn2s-small, fcn32s, fcn8s, fcn8s-atonce"
    ):
        create_model("unet", 3, 2)


@pytest.mark.parametrize(
    "options", [{"depth": 3}, {"width": -1}, {"width": "wide"}, {"blocks": 2}, {"blocks": 6}]
)
def test_an_impossible_option_is_refused(options):
    with pytest.raises(ModelError, match="fcn8s cannot be built"):
        create_model("fcn8s", 3, 2, **options)


def test_underscores_are_as_good_as_hyphens():
    assert type(create_model("fcn8s_small", 3, 2)) is type(create_model("fcn8s-small", 3, 2))
