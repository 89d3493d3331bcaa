import re

import pytest

from fcntile.errors import ModelError
from fcntile.models import create_model


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(
        ModelError, match=r"'unet'.*fcn16s, fcn2s-small, fcn32s, fcn8s, fcn8s-atonce"
    ):
        create_model("unet", 3, 2)


@pytest.mark.parametrize(
    ("name", "option", "words"),
    [
        ("fcn8s", {"depth": 3}, "fcn8s has no option 'depth'; there are blocks, width, head"),
        ("fcn8s", {"bands": 3}, "fcn8s has no option 'bands'"),
        ("fcn8s", {"name": "x"}, "fcn8s has no option 'name'"),
        ("fcn8s", {"skips": 1}, "fcn8s has no option 'skips'"),
        ("fcn8s", {"width": 0}, "option width of fcn8s is 0, wanted is a whole number from 1"),
        ("fcn8s", {"width": "wide"}, "is 'wide', wanted is a whole number"),
        ("fcn8s", {"width": True}, "is True, wanted is a whole number"),
        ("fcn8s", {"width": 1.5}, "is 1.5, wanted is a whole number"),
        ("fcn8s", {"batch_norm": "no"}, "is 'no', wanted is true or false"),
        ("fcn8s", {"dropout": 1}, "is 1, wanted is a number from 0 to less than 1"),
        ("fcn8s", {"skip_scales": ["a", "b"]}, "wanted is a list of numbers"),
        ("fcn8s", {"skip_scales": [float("nan"), 1]}, "wanted is a list of numbers"),
        ("fcn8s", {"padding": 50}, "padding 50 is neither same nor 100"),
        ("deconvnet", {"unpooling": "cubic"}, "upsampling 'cubic' is none of frozen"),
        ("deconvnet", {"blocks": 6}, "6 blocks: wanted is 1 to 5"),
        ("fc-densenet56", {"layers": [3]}, "a number for each block down and for the bottleneck"),
        ("fc-densenet56", {"layers": [1, 0]}, "wanted is a whole number from 1, or a list"),
        ("fc-densenet56", {"reduction": -1}, "wanted is a number from 0"),
        ("full-resolution", {"height_bands": 3}, "3 of 3 bands cannot be heights"),
        ("full-resolution", {"height_bands": -1}, "wanted is a whole number from 0"),
        ("fcn-resnet50", {"style": "caffe"}, "style 'caffe' is neither keras nor torchvision"),
        ("atrous-vgg16", {"output_stride": 8}, "output stride 8 is neither 16 nor 32"),
    ],
)
def test_an_impossible_option_is_refused(name, option, words):
    with pytest.raises(ModelError, match=re.escape(words)):
        create_model(name, 3, 2, **option)


def test_underscores_are_as_good_as_hyphens():
    assert type(create_model("fcn8s_small", 3, 2)) is type(create_model("fcn8s-small", 3, 2))
