"""`fcntile import`."""

from dataclasses import asdict
from typing import Any

import click

from fcntile.cli import importing, options


@click.command("import", short_help="Make a model file of another framework's weights.")
@click.argument("weights", metavar="FILE")
@click.option("-o", "--output", metavar="FILE", required=True, help="The model file to write.")
@click.option("--name", metavar="TEXT", help="Name of the model.  [default: that of the output]")
@options.classes
@options.licence
@options.attribution
@options.overwrite
@options.as_json
def import_(as_json: bool, **values: Any) -> None:
    """Write a model file with the weights of another framework.

    FILE is a complete FCN (of Caffe, of MatConvNet, or the Caffe nets as torch has them) or VGG16
    with its top (of Keras, torchvision, Caffe, or vgg16.npy), which becomes its fully
    convolutional classifier; also ResNet-50 of torchvision. It is recognised by its content.

    Order of channels, normalisation, layout and turn of kernels are brought to those of fcntile;
    the mean and deviation of red, green and blue go into the card. To begin training with a file,
    complete or not, use fcntile train --init-weights.

    \b
    Examples:
      fcntile import fcn8s_from_caffe.pth -o voc.safetensors
      fcntile import pascal-fcn16s-dag.mat -o voc.safetensors --json
      fcntile import fcn32s.pth -o roofs.safetensors --classes roofs.csv
    """
    with importing.quick():
        from fcntile.importer import import_weights

    summary = import_weights(**values)
    if as_json:
        options.print_json(asdict(summary))
