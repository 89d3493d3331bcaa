"""What cannot be read is refused in a sentence, and nothing in a file is ever run."""

import os
import pickle
import re
import tarfile

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from nets import save_test_model
from safetensors.torch import save_file
from vgg import caffe_messages, hollow, hollow_vgg, sequential

from fcntile.errors import ModelError
from fcntile.models.pretrained import read_pretrained


class Malicious:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def refused(path, words):
    with pytest.raises(ModelError, match=words) as caught:
        read_pretrained(path)
    assert "\n" not in str(caught.value)


def test_a_pickle_is_never_run(tmp_path):
    made = tmp_path / "made"
    np.save(tmp_path / "vgg16.npy", {"conv1_1": [Malicious(made)]}, allow_pickle=True)
    refused(tmp_path / "vgg16.npy", "posix.mkdir, which is no array")
    torch.save({"conv1_1.weight": Malicious(made)}, tmp_path / "vgg.pth")
    refused(tmp_path / "vgg.pth", "should be a state dict saved by torch")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Malicious(made)))
    refused(tmp_path / "plain.pth", "should be a state dict saved by torch")
    assert not made.exists()
    np.load(tmp_path / "vgg16.npy", allow_pickle=True)  # numpy runs it: the test is a test
    assert made.exists()


def test_whatever_a_reader_stumbles_over_is_a_sentence(tmp_path):
    refused(write(tmp_path / "short.pth", b"\x80"), "is it damaged")
    np.save(tmp_path / "text.npy", {"conv1_1": [np.array("a"), np.array("b")]}, allow_pickle=True)
    refused(tmp_path / "text.npy", "numbers of the kind 'U1'")
    with h5py.File(tmp_path / "flat.weights.h5", "w") as file:
        file["layers/dense"] = np.zeros(3)
    refused(tmp_path / "flat.weights.h5", "is it damaged")


def test_what_has_no_end_is_not_read():
    refused("/dev/zero", "it is a device")


def write(path, content):
    path.write_bytes(content)
    return path


def test_other_files_are_named_for_what_they_are(tmp_path, make_raster, noise):
    refused(tmp_path / "missing.pth", "cannot read the weights .*No such file")
    refused(tmp_path, "cannot read the weights .*directory")
    refused(write(tmp_path / "empty", b""), "no file of weights that fcntile knows")
    refused(write(tmp_path / "text.pth", b"<!DOCTYPE html><html>"), "no file of weights")
    refused(make_raster(noise(3, 8, 8)), "no file of weights")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)  # and is not read
    refused(tmp_path / "huge", "no file of weights")
    mat = b"MATLAB 7.3 MAT-file, Platform: GLNXA64" + bytes(500)
    refused(write(tmp_path / "new.mat", mat), r"save it again .*'-v7'")
    refused(write(tmp_path / "bad.mat", b"MATLAB 5.0 MAT-file" + bytes(20)), "cannot read")
    np.save(tmp_path / "one.npy", np.zeros(3))
    refused(tmp_path / "one.npy", "a single array")
    np.save(tmp_path / "list.npy", np.array([{}, 3], object), allow_pickle=True)
    refused(tmp_path / "list.npy", "no dictionary of layers")
    np.save(tmp_path / "odd.npy", {"conv1_1": {"a": 1}}, allow_pickle=True)
    refused(tmp_path / "odd.npy", "layer conv1_1 .* is not")
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["x"] = np.zeros(3)
    refused(tmp_path / "data.h5", "no weights in a layout of Keras")
    torch.save([1, 2], tmp_path / "list.pth")
    refused(tmp_path / "list.pth", "holds no state dict but a list")
    torch.save({"encoder.weight": torch.zeros(3)}, tmp_path / "other.pth")
    refused(tmp_path / "other.pth", "neither VGG16, an FCN nor ResNet-50")
    refused(save_test_model(tmp_path / "m.safetensors", "pixel"), "neither VGG16")


def test_damaged_files_are_refused(weights, tmp_path):
    torch.save(weights, tmp_path / "whole.pth")
    content = (tmp_path / "whole.pth").read_bytes()
    refused(write(tmp_path / "half.pth", content[: len(content) // 2]), "cannot read")
    torch.save({}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    content = (tmp_path / "old.pth").read_bytes()
    refused(write(tmp_path / "start.pth", content[:8]), r"saved by torch .*: it is damaged")
    with h5py.File(tmp_path / "whole.h5", "w") as file:
        file["x"] = np.zeros(10_000)
    content = (tmp_path / "whole.h5").read_bytes()
    refused(write(tmp_path / "half.h5", content[:2000]), "cannot read")
    with tarfile.open(tmp_path / "old.pth", "w", format=tarfile.USTAR_FORMAT) as tar:
        tar.add(tmp_path / "half.h5")
    refused(tmp_path / "old.pth", "should be a state dict saved by torch")
    nan = {**weights, "conv3_1.bias": weights["conv3_1.bias"] * torch.nan}
    torch.save(nan, tmp_path / "nan.pth")
    refused(tmp_path / "nan.pth", "damaged: conv3_1.bias has values that are not finite")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.to_sparse(), "torch.sparse_coo, on cpu"),
        (lambda t: t.to("meta"), "on meta"),
        (lambda t: t.to(torch.complex64), "a tensor of torch.complex64"),
        (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.quint8), "torch.quint8"),
        (lambda t: torch.nested.nested_tensor([t, t[:2]]), "save it as float32, dense"),
    ],
)
@pytest.mark.filterwarnings("ignore")  # that nested and quantised tensors may go
def test_a_tensor_of_no_plain_numbers_is_refused(change, words, tmp_path):
    torch.save({"conv1_1.weight": change(torch.ones(4, 3))}, tmp_path / "vgg.pth")
    refused(tmp_path / "vgg.pth", f"has in conv1_1.weight .*{words}")


def test_numbers_that_torch_cannot_convert_are_refused(tmp_path):
    halves = torch.zeros(4, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)
    save_file({"conv1_1.bias": halves}, tmp_path / "vgg.safetensors")
    refused(tmp_path / "vgg.safetensors", "cannot read the weights .*Float4")


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool, torch.float64])
def test_any_real_numbers_become_floats(dtype, tmp_path):
    torch.save(hollow_vgg(dtype), tmp_path / "vgg.pth")
    found = read_pretrained(tmp_path / "vgg.pth").weights
    assert {weight.dtype for weight in found.values()} == {torch.float32}


@pytest.mark.filterwarnings("error")  # numpy's, that it drops the imaginary part
def test_complex_arrays_are_refused(tmp_path):
    odd = np.ones((1, 1, 3), np.complex64)
    with h5py.File(tmp_path / "vgg.h5", "w") as file:
        file.attrs["nb_layers"] = 1
        file["layer_1/param_0"] = odd
        file["layer_1"].attrs["nb_params"] = 1
    refused(tmp_path / "vgg.h5", "complex numbers, wanted are real ones")
    for name, value, mean in (
        ("conv1_1_filter", odd, 1.0),
        ("conv1_1_bias", odd, 1.0),
        ("conv1_1_bias", 1.0, odd),
    ):
        content = {
            "params": np.array([(name, value)], [("name", object), ("value", object)]),
            "meta": {"normalization": {"averageImage": mean}},
        }
        scipy.io.savemat(tmp_path / "vgg.mat", content)
        refused(tmp_path / "vgg.mat", "complex numbers, wanted are real ones")


def test_a_blob_that_does_not_fit_its_shape_is_refused(tmp_path):
    net = caffe_messages()()
    blob = net.layer.add(name="conv1_1").blobs.add()
    blob.shape.dim.extend([64, 3, 3, 3])
    blob.data.extend([1.0, 2.0])
    refused(write(tmp_path / "vgg.caffemodel", net.SerializeToString()), "is it damaged")


def test_other_vggs_are_not_vgg16(weights, tmp_path):
    state = {f"features.{k}": v for k, v in sequential(weights).state_dict().items()}
    gray = {**state, "features.0.weight": state["features.0.weight"][:, :1]}
    torch.save(gray, tmp_path / "gray.pth")
    refused(tmp_path / "gray.pth", "another net than VGG16: .*conv1_1, the file has one of")
    del state["features.17.weight"]  # VGG19 has its next convolution elsewhere
    torch.save(state, tmp_path / "vgg19.pth")
    refused(tmp_path / "vgg19.pth", "in conv4_1, the file has none")
    dense = {**weights, "fc6.weight": torch.zeros(4, 100)}
    torch.save(dense, tmp_path / "small.pth")
    refused(tmp_path / "small.pth", "layer fc6 .*100 inputs are no maps of 7 x 7")


@pytest.mark.parametrize("name", ["conv3_4", "block5_conv4"])
def test_vgg19_is_not_vgg16(name, tmp_path):
    weights = hollow_vgg()
    if name.startswith("block"):
        weights = {re.sub(r"conv(.)_(.)", r"block\1_conv\2", n): w for n, w in weights.items()}
    torch.save({**weights, f"{name}.weight": hollow(8, 8, 3, 3)}, tmp_path / "vgg19.pth")
    refused(tmp_path / "vgg19.pth", f"is VGG19, with a layer {name}: give the weights of VGG16")


class Placed:
    """An array that is made of bytes, and a dtype with a state of the file's own."""

    def __init__(self, name, state):
        self.name, self.state = name, state

    def __reduce__(self):
        return np.dtype, (self.name,), self.state


@pytest.mark.parametrize("name", ["V8", "f8", "O"])
def test_numpy_takes_no_state_from_a_file(tmp_path, name):
    fields = {"a": (np.dtype("O"), 0)}
    dtype = Placed(name, (3, "|", None, ("a",), fields, 8, 1, 0))
    buffer = type("Buffer", (), {"__reduce__": lambda _: (np.ndarray, ((1,), dtype, b"A" * 8))})()
    layers = {"conv1_1": [buffer, np.zeros(1)]}
    np.save(tmp_path / "vgg16.npy", np.array(layers, object), allow_pickle=True)
    refused(tmp_path / "vgg16.npy", "cannot read the weights|is not .kernel, bias.")
