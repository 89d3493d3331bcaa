"""The whole VGG16 of Keras, classifier and all, becomes a model with the same scores."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from fcntile.importer import import_weights
from fcntile.models.model_file import load_model

KERAS = """
import os, sys
os.environ["KERAS_BACKEND"] = "torch"
import keras, numpy as np
rng, folder = np.random.default_rng(0), sys.argv[1]
model = keras.applications.VGG16(weights=None)
for layer in model.layers:
    if layer.weights:
        shape = layer.kernel.shape
        kernel = rng.standard_normal(shape, "f4") * (2 / np.prod(shape[:-1])) ** 0.5
        layer.set_weights([kernel, rng.normal(0, 0.1, shape[-1])])
model.get_layer("predictions").activation = keras.activations.linear
model.save(f"{folder}/whole.h5")
model.save_weights(f"{folder}/three.weights.h5")
image = rng.integers(0, 256, (224, 224, 3)).astype("u1")
np.save(f"{folder}/image.npy", image)
x = keras.applications.vgg16.preprocess_input(image[None].astype("f4"))
names = ["fc1", "fc2", "predictions"]
maps = keras.Model(model.input, [model.get_layer(name).output for name in names])
for name, values in zip(names, maps.predict(x, verbose=0)):
    np.save(f"{folder}/{name}.npy", values)
"""


@pytest.fixture(scope="module")
def keras_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("top")
    subprocess.run([sys.executable, "-c", KERAS, folder], check=True, capture_output=True)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["whole.h5", "three.weights.h5"])
def test_the_classifier_scores_as_in_keras(name, keras_folder, tmp_path):
    summary = import_weights(keras_folder / name, tmp_path / "imagenet.safetensors")
    assert (summary.source, summary.arch) == ("VGG16 of Keras", "fcn32s")
    net, card = (getattr(load_model(summary.output), n) for n in ("net", "card"))
    seen = {}
    for theirs, ours in (("fc1", "fc6"), ("fc2", "fc7"), ("predictions", "score_fr")):
        layer = net.get_submodule(ours)
        layer.register_forward_hook(lambda *args, key=theirs: seen.update({key: args[2]}))
    mean, std = (torch.tensor([getattr(b, n) for b in card.bands]) for n in ("mean", "std"))
    x = (torch.from_numpy(np.load(keras_folder / "image.npy")).float() - mean) / std
    with torch.no_grad():
        net(x.permute(2, 0, 1)[None])
    for theirs, maps in seen.items():
        expected = torch.from_numpy(np.load(keras_folder / f"{theirs}.npy"))
        ours = maps[..., 3, 3]  # where fc6 sees all 7 x 7 pixels and no padding
        assert expected.abs().max() > 0.1
        assert (ours - expected).abs().max() <= 1e-4 * expected.abs().max(), theirs
