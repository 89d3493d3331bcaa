"""Segment rasters too large for memory with fully convolutional networks.

The path of a pixel, and the file of each step (`predict.py` puts them in a row):

    raster/reader.py       from disk, in rows of tiles; pixels without data are known
    inference/tiling.py    which tile of the regular grid holds it (inference/grid.py: which grid)
    inference/engine.py    with its batch to the device, normalised there, through the net
    models/                the nets, one file per family; models/registry.py knows them by name
    inference/blend.py     its logits meet those of the neighbouring tiles; the best class stays
    raster/part_files.py   into the file of its part, which outlives whatever ends the run
    raster/assembly.py     and with all parts into the mask, a Cloud-Optimized GeoTIFF

`train.py` makes the model from rasters and labels (`training/`), `importer.py` from the weights of
other frameworks (`models/pretrained/`); `evaluate.py` scores the mask, `inspect.py` shows what a
net makes of an image, `info.py` what it is made of.
The command line (`cli/`) is a roof over the verbs; `docs/concepts.md` has the words.
"""

__version__ = "0.1.0"
