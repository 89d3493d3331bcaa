"""Class tables: from files, from what labels hold, and what they do to label values."""

import json
import re

import numpy as np
import pytest
import rasterio

from fcntile.errors import InputError
from fcntile.raster.classes import (
    UNKNOWN,
    UNLABELLED,
    Class,
    Legend,
    check_values,
    default_color,
    found_classes,
    legend_of,
    lookup,
    read_classes,
)
from fcntile.raster.sources import LabelSource

WANTED = [Class((11,), "water", "#0000ff"), Class((42, 43), "forest", default_color(42))]
CSV = "value,name,color\n42,forest,\n11, water, #0000FF\n43,forest,\n"
OBJECTS = [
    {"value": 42, "name": "forest"},
    {"value": "11", "name": "water", "color": "#0000ff"},
    {"value": 43, "name": "forest"},
]
YAML = """
- {value: 42, name: forest}
- {value: 11, name: water, color: "#0000ff"}
- {value: 43, name: forest}
"""


@pytest.mark.parametrize(
    ("name", "text"),
    [("c.csv", CSV), ("c.csv", "\ufeff" + CSV), ("c.json", json.dumps(OBJECTS)), ("c.yaml", YAML)],
)
def test_a_table_is_read_from_any_format(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_classes(tmp_path / name) == WANTED


def test_a_table_can_be_an_object_of_names(tmp_path):
    (tmp_path / "c.json").write_text('{"0": "land", "1": "water"}')
    assert [(c.id, c.name) for c in read_classes(tmp_path / "c.json")] == [
        (0, "land"),
        (1, "water"),
    ]


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        ("c.csv", "value,name\nx,water\n", "'x'"),
        ("c.csv", "value\n1\n", "name"),
        ("c.csv", "value,name\n1,water\n1,land\n", "value 1 twice"),
        ("c.csv", "value,name\n-1,water\n", "-1"),
        ("c.csv", "value,name\n65535,water\n", "65535"),
        ("c.csv", "value,name,color\n1,water,blue\n", "'blue'"),
        ("c.csv", "value,name\n1,\n2,\n", "value 1 has no name"),
        ("c.csv", "value,name\n", "has no class"),
        ("c.json", "[]", "has no class"),
        ("c.json", '{"1": null}', "value 1 has no name"),
        ("c.json", "{", "Expecting"),
        ("c.json", "[" * 100_000, "cannot read"),
        ("c.json", "[1, 2]", "cannot read"),
        ("c.yaml", "- {", "cannot read"),
        ("c.txt", "1", ".csv, .json nor .yaml"),
        ("c.json", '[{"value": 0.9, "name": "a"}]', "value 0.9 is no whole number"),
        ("c.json", '[{"value": true, "name": "a"}]', "value True is no whole number"),
        ("c.json", '[{"value": 1e400, "name": "a"}]', "value inf is no whole number"),
        ("c.json", '[{"value": Infinity, "name": "a"}]', "value inf is no whole number"),
        ("c.json", f'[{{"value": {"9" * 400}, "name": "a"}}]', "999 is no whole number"),
        ("c.json", f'{{"{"9" * 5000}": "a"}}', "is no whole number"),
        ("c.json", '[{"value": 1, "name": ["a"]}]', "the name of value 1 is ['a']"),
        ("c.json", '{"1": true}', "the name of value 1 is True"),
        ("c.json", '{"1": "\\ud800"}', "surrogates not allowed"),
        ("c.json", '{"1": "a", "1": "b"}', "'1' is there twice"),
        ("c.json", '[{"value": 1, "value": 2, "name": "a"}]', "'value' is there twice"),
        ("c.yaml", "- {value: 1.5, name: a}", "value 1.5 is no whole number"),
        ("c.yaml", "- {value: .inf, name: a}", "value inf is no whole number"),
        ("c.yaml", "1: a\n01: b\n", "1 is there twice"),
        ("c.yaml", "- {value: 1, name: a, value: 2}", "'value' is there twice"),
        ("c.yaml", "0: no\n2: off\n", "the name of value 0 is False: put a name in quotes"),
        ("c.yaml", '1: "\\ud800"', "surrogates not allowed"),
        ("c.csv", "value,name\n1," + 200_000 * "a", "field larger than field limit"),
        ("c.csv", "value;name\n1;a\n", "its head has 'value;name', wanted is value,name,color"),
        ("c.csv", "id,label\n1,a\n", "its head has 'id', 'label', wanted is value,name,color"),
        ("c.csv", "value,name\n1,beech, oak\n", "1 has more fields than the head"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, name, text, word):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=re.escape(word)) as error:
        read_classes(tmp_path / name)
    assert name in str(error.value)


def test_rows_may_share_what_yaml_lets_them(tmp_path):
    rows = ["- &a {value: 1, name: oak, color: '#00ff00'}", "- {<<: *a, value: 2, name: beech}"]
    (tmp_path / "c.yaml").write_text("\n".join(rows))
    colors = {c.name: c.color for c in read_classes(tmp_path / "c.yaml")}
    assert colors == {"oak": "#00ff00", "beech": "#00ff00"}


def test_a_missing_table_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"none\.csv"):
        read_classes(tmp_path / "none.csv")


def test_values_become_positions():
    table = lookup(WANTED, ignore=[7])
    values = np.array([11, 42, 43, 7, 255, 5, UNLABELLED])
    assert table[values].tolist() == [0, 1, 1, UNLABELLED, UNLABELLED, UNKNOWN, UNLABELLED]


def test_255_is_a_class_where_the_table_says_so():
    assert lookup([Class((0,), "a", "#000000"), Class((255,), "b", "#000000")])[255] == 1
    assert lookup([Class((0,), "a", "#000000"), Class((300,), "b", "#000000")])[255] == UNKNOWN


def test_unknown_values_are_listed():
    with pytest.raises(InputError, match="values 3, 11, 42, of which 3 is in no row"):
        check_values([42, 3, 11], lookup(WANTED), "labels.tif")


def test_found_classes_have_the_names_and_colours_of_the_file():
    legend = Legend({3: "rock"}, {3: "#010203"})
    assert found_classes([4, 3], legend) == [
        Class((3,), "rock", "#010203"),
        Class((4,), "class 4", default_color(4)),
    ]


def test_default_colours_differ():
    colors = [default_color(value) for value in range(300)]
    assert len(set(colors)) > 290


def test_labels_that_contradict_each_other_are_refused(make_raster, tmp_path):
    paths = []
    for i, name in enumerate(["roof", "Roof", "road"]):
        paths.append(make_raster(np.ones((1, 8, 8), np.uint8), f"{i}.tif"))
        with rasterio.open(paths[-1], "r+") as raster:
            raster.update_tags(1, CLASS_1=name)
    assert LabelSource(paths[:2]).legend.names == {1: "roof"}
    with pytest.raises(InputError, match=r"value 1 is 'road' in .*2\.tif, but 'roof'"):
        LabelSource(paths)
    LabelSource(paths, classes=[Class((1,), "roof", "#ff0000")])


def test_a_legend_is_read_from_a_raster(make_raster, tmp_path):
    path = make_raster(np.zeros((1, 4, 4), np.uint8), "labels.tif")
    with rasterio.open(path, "r+") as raster:
        raster.write_colormap(1, {0: (0, 0, 0, 255), 1: (255, 0, 16, 255)})
        raster.update_tags(1, CLASS_1="roof")
    categories = "<CategoryNames><Category>ground</Category><Category>x</Category></CategoryNames>"
    (tmp_path / "labels.tif.aux.xml").write_text(
        f'<PAMDataset><PAMRasterBand band="1">{categories}</PAMRasterBand></PAMDataset>'
    )
    with rasterio.open(path) as raster:
        legend = legend_of(raster)
    assert legend.names == {0: "ground", 1: "roof"}
    assert legend.colors[1] == "#ff0010"


def test_only_classes_have_a_place_in_a_legend(make_raster):
    path = make_raster(np.zeros((1, 4, 4), np.uint16), "labels.tif")
    tags = {f"CLASS_{n}": "x" for n in (1, 65534, UNLABELLED, 70_000, 9**999, "1_000")}
    with rasterio.open(path, "r+") as raster:
        raster.update_tags(1, **tags)
    with rasterio.open(path) as raster:
        assert legend_of(raster).names == {1: "x"}


@pytest.mark.parametrize("encoding", ["foo", "utf-32"])
def test_a_legend_that_cannot_be_read_is_none(make_raster, tmp_path, encoding):
    path = make_raster(np.zeros((1, 4, 4), np.uint8), "labels.tif")
    with rasterio.open(path) as raster:
        (tmp_path / "labels.tif.aux.xml").write_text(f'<?xml version="1.0" encoding="{encoding}"?>')
        assert legend_of(raster).names == {}


def test_a_name_may_leave_no_room_for_that_of_a_legend(make_raster):
    path = make_raster(np.zeros((1, 4, 4), np.uint8), "x" * 245 + ".tif")
    with rasterio.open(path) as raster:
        assert legend_of(raster) == Legend()
