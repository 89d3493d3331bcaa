"""Labels on another raster's grid, compared with GDAL's own programs."""

import json
import shutil
import struct
import subprocess
import warnings

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.rpc import RPC
from rasterio.transform import from_bounds, from_origin
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform, transform_bounds
from rasterio.windows import Window

import fcntile.raster.labels as labels_module
from fcntile.errors import InputError, OptionError
from fcntile.raster.classes import UNLABELLED, Class
from fcntile.raster.labels import WARP_TOLERANCE, RasterLabels
from fcntile.raster.sources import LabelSource
from fcntile.raster.vectors import read_features

SHAPES = [  # longitude, latitude, radius in degrees, corners, field
    (0.2005, 51.4990, 0.0004, 5, 1),
    (0.2014, 51.4984, 0.0003, 3, 2),
    (0.2022, 51.4992, 0.0005, 17, 3),
    (0.2011, 51.4986, 0.0002, 4, 2),
]
SQUARE = [[[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]]
EXTENT = 0.2000, 51.4982, 0.2026, 51.4994  # cuts through the first and the third


def polygon(x, y, radius, corners):
    angles = np.linspace(0.3, 0.3 + 2 * np.pi, corners, endpoint=False)
    ring = [[x + radius * np.cos(a), y + 0.6 * radius * np.sin(a)] for a in angles]
    return {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}


def write_geojson(path, shapes=SHAPES, crs=None, field="kind"):
    features = [
        {"type": "Feature", "properties": {field: value}, "geometry": polygon(*shape)}
        for *shape, value in shapes
    ]
    content = {"type": "FeatureCollection", "features": features}
    if crs:
        content["crs"] = {"type": "name", "properties": {"name": crs}}
    path.write_text(json.dumps(content))
    return str(path)


@pytest.fixture
def image(make_raster):
    """Return a function that makes an image around the shapes in a CRS, 300 x 200 px."""

    def make(crs, name="image.tif"):
        left, bottom, right, top = transform_bounds("EPSG:4326", crs, *EXTENT)
        transform = from_bounds(left, bottom, right, top, 300, 200)
        return make_raster(np.zeros((1, 200, 300), np.uint8), name, crs=crs, transform=transform)

    return make


def rasterized_by_gdal(labels, image, tmp_path, *burn):
    """Reproject and burn with GDAL's programs."""
    with rasterio.open(image) as raster:
        crs, b, shape = raster.crs.to_string(), raster.bounds, raster.shape
    moved = tmp_path / f"moved_{crs.replace(':', '')}.gpkg"
    out = tmp_path / f"burnt_{crs.replace(':', '')}.tif"
    subprocess.run(["ogr2ogr", "-t_srs", crs, moved, labels], check=True)
    grid = ["-te", b.left, b.bottom, b.right, b.top, "-ts", shape[1], shape[0]]
    command = ["gdal_rasterize", "-q", *burn, *grid, "-ot", "Byte", moved, out]
    subprocess.run([str(word) for word in command], check=True)
    with rasterio.open(out) as raster:
        return raster.read(1)


needs_gdal = pytest.mark.skipif(not shutil.which("gdal_rasterize"), reason="needs gdal-bin")


@needs_gdal
@pytest.mark.parametrize("crs", ["EPSG:3857", "EPSG:32631", "EPSG:4326"])
def test_vectors_are_burned_as_gdal_does(image, tmp_path, crs):
    labels = write_geojson(tmp_path / "labels.geojson")
    path = image(crs)
    source = LabelSource([labels], class_field="kind", outside="background")
    with rasterio.open(path) as raster:
        values = source.open(labels, raster).read(Window(0, 0, 300, 200))
    wanted = rasterized_by_gdal(labels, path, tmp_path, "-a", "kind")
    assert set(np.unique(wanted)) == {0, 1, 2, 3}
    np.testing.assert_array_equal(values, wanted)


@needs_gdal
def test_without_a_field_features_are_class_1_on_background(image, tmp_path):
    labels = write_geojson(tmp_path / "labels.geojson")
    path = image("EPSG:3857")
    with rasterio.open(path) as raster:
        values = LabelSource([labels]).open(labels, raster).read(Window(0, 0, 300, 200))
    np.testing.assert_array_equal(values, rasterized_by_gdal(labels, path, tmp_path, "-burn", "1"))


def test_a_raster_with_the_south_up_gets_the_same_labels(image, make_raster, tmp_path):
    labels = write_geojson(tmp_path / "labels.geojson")
    with rasterio.open(image("EPSG:3857")) as raster:
        values = LabelSource([labels]).open(labels, raster).read(Window(0, 0, 300, 200))
        up = raster.transform * rasterio.Affine.translation(0, 200) * rasterio.Affine.scale(1, -1)
    pixels = np.zeros((1, 200, 300), np.uint8)
    flipped = make_raster(pixels, "up.tif", crs="EPSG:3857", transform=up)
    with rasterio.open(flipped) as raster:
        below = LabelSource([labels]).open(labels, raster).read(Window(0, 0, 300, 200))
    np.testing.assert_array_equal(below[::-1], values)
    again = make_raster(values[None].astype(np.uint8), "values.tif", crs="EPSG:3857", transform=up)
    for path, wanted in ((flipped, values), (image("EPSG:3857"), values[::-1])):
        with rasterio.open(path) as raster:
            found = RasterLabels(again, raster).read(Window(0, 0, 300, 200))
            np.testing.assert_array_equal(found, wanted)


def test_parts_of_geometries_are_burned_like_the_whole(image, tmp_path):
    path = tmp_path / "parts.geojson"
    shapes = [polygon(*shape) for *shape, _ in SHAPES]
    several = {"type": "MultiPolygon", "coordinates": [s["coordinates"] for s in shapes[:3]]}
    nested = {"type": "GeometryCollection", "geometries": [several, shapes[3], None]}
    empty = {"type": "Polygon", "coordinates": []}
    features = [
        {"type": "Feature", "properties": {}, "geometry": g}
        for g in (nested, empty, None, {"type": "Polygon", "coordinates": [[]]})
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    plain = write_geojson(tmp_path / "labels.geojson")
    with rasterio.open(image("EPSG:3857")) as raster:
        one, two = (
            LabelSource([str(p)]).open(str(p), raster).read(Window(0, 0, 300, 200))
            for p in (path, plain)
        )
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    "coordinates",
    [
        [[["a", "b"]] * 4],
        [[[0, 1]], [[None, 2]]],
        7,
        [[7]],
        [[[1], [2], [3], [1]]],
        [[[0, 0], [1, 1, 1], [0, 1], [0, 0]]],
        [*SQUARE, [[]]],
    ],
)
def test_coordinates_that_are_none_are_refused(tmp_path, coordinates):
    geometry = {"type": "Polygon", "coordinates": coordinates}
    (tmp_path / "l.geojson").write_text(json.dumps(geometry))
    with pytest.raises(InputError, match="have a geometry that is none"):
        read_features(str(tmp_path / "l.geojson"))


@pytest.mark.parametrize(
    ("kind", "coordinates", "words"),
    [
        ("CurvePolygon", SQUARE, "type is CurvePolygon"),
        ("MultiFoo", [SQUARE], "type is MultiFoo"),
        ("Multi", [SQUARE], "type is Multi:"),
        ("LinearRing", SQUARE[0], "type is LinearRing"),
        ("LineString", [[0, 0]], "LineString with fewer than 2 points"),
        ("Polygon", [[[0, 0], [1, 1]]], "Polygon with fewer than 3 points"),
        ("Polygon", [[[0, 0], [1, 1], [0, 0]]], "Polygon with fewer than 3 points"),
        ("MultiPolygon", [SQUARE, [*SQUARE, [[0, 0]]]], "MultiPolygon with fewer than 3 points"),
    ],
)
def test_geometries_that_gdal_would_skip_are_refused(tmp_path, kind, coordinates, words):
    good = {"type": "Polygon", "coordinates": SQUARE}
    both = [good, {"type": kind, "coordinates": coordinates}]
    path = tmp_path / "l.geojson"
    path.write_text(json.dumps({"type": "GeometryCollection", "geometries": both}))
    with pytest.raises(InputError, match=f"have a geometry that is none: .*{words}"):
        read_features(str(path))


@pytest.mark.parametrize("properties", [[1], "roof", 7, True])
def test_properties_that_are_none_are_refused(tmp_path, properties):
    square = {"type": "Polygon", "coordinates": SQUARE}
    feature = {"type": "Feature", "properties": properties, "geometry": square}
    (tmp_path / "l.geojson").write_text(json.dumps(feature))
    with pytest.raises(InputError, match="the properties of a feature are "):
        read_features(str(tmp_path / "l.geojson"), "kind")


def write_layer(path, name, *shapes, append=False):
    """Write a layer of WKB geometries to a GeoPackage; a table without geometry if there is none.

    Its field is the place of a feature.
    """
    raw = pytest.importorskip("pyogrio.raw")
    geometry = np.array(shapes, object) if shapes else None
    fields, kinds = np.array(["kind"]), [np.arange(len(shapes) or 1)]
    options = {"crs": "EPSG:4326", "geometry_type": "Unknown"} if shapes else {}
    raw.write(path, geometry, kinds, fields, layer=name, driver="GPKG", append=append, **options)


def test_one_of_several_layers_is_not_taken_at_random(tmp_path):
    shapely = pytest.importorskip("shapely")
    path, square = str(tmp_path / "l.gpkg"), shapely.to_wkb(shapely.box(0, 0, 1, 1))
    write_layer(path, "notes")
    write_layer(path, "roofs", square, append=True)
    assert read_features(path, "kind").values == [0]
    write_layer(path, "roads", square, square, append=True)
    with pytest.raises(InputError, match=r"has the layers roofs, roads: extract one"):
        read_features(path)


def test_a_file_of_tables_only_is_refused(tmp_path):
    path = str(tmp_path / "l.gpkg")
    write_layer(path, "notes")
    with pytest.raises(InputError, match=r"l\.gpkg: it has only tables without geometries"):
        read_features(path)


@pytest.mark.filterwarnings("ignore:Registering non-standard")
def test_surfaces_in_space_are_refused(tmp_path):
    ring = struct.pack("<12d", 0, 0, 0, 1, 0, 0, 1, 1, 0, 0, 0, 0)
    triangle = struct.pack("<BIII", 1, 1017, 1, 4) + ring
    write_layer(tmp_path / "l.gpkg", "tin", struct.pack("<BII", 1, 1016, 1) + triangle)
    with pytest.raises(InputError, match=r"cannot read the labels .*l\.gpkg"):
        read_features(str(tmp_path / "l.gpkg"))


def test_a_geometry_may_be_a_file(tmp_path):
    geometry = {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]}
    (tmp_path / "l.geojson").write_text(json.dumps(geometry))
    assert read_features(str(tmp_path / "l.geojson")).geometries == [geometry]


def test_a_file_without_end_is_refused(tmp_path):
    (tmp_path / "l.geojson").write_text("[" * 100_000)
    with pytest.raises(InputError, match="cannot read the labels"):
        read_features(str(tmp_path / "l.geojson"))


def test_a_field_of_lists_is_refused(tmp_path):
    shapes = [(*shape, [1, 2]) for *shape, _ in SHAPES]
    with pytest.raises(InputError, match=r"the field kind .* has lists"):
        read_features(write_geojson(tmp_path / "l.geojson", shapes), "kind")


def test_with_a_field_the_rest_is_unlabelled(image, tmp_path):
    labels = write_geojson(tmp_path / "labels.geojson")
    with rasterio.open(image("EPSG:3857")) as raster:
        source = LabelSource([labels], class_field="kind")
        values = source.open(labels, raster).read(Window(0, 0, 300, 200))
    assert set(np.unique(values)) == {1, 2, 3, UNLABELLED}


def test_a_class_0_that_no_feature_has_is_the_rest(image, tmp_path):
    labels = write_geojson(tmp_path / "labels.geojson")
    classes = [Class((i,), f"c{i}", "#000000") for i in range(4)]
    with rasterio.open(image("EPSG:3857")) as raster:
        source = LabelSource([labels], class_field="kind", classes=classes)
        values = source.open(labels, raster).read(Window(0, 0, 300, 200))
    assert set(np.unique(values)) == {0, 1, 2, 3}


def test_names_in_the_field_are_classes(image, tmp_path):
    shapes = [(*shape, {1: "barn", 2: "house", 3: "house"}[kind]) for *shape, kind in SHAPES]
    labels = write_geojson(tmp_path / "labels.geojson", shapes)
    source = LabelSource([labels], class_field="kind", outside="background")
    assert source.legend.names == {0: "background", 1: "barn", 2: "house"}
    table = [Class((5,), "house", "#000000"), Class((9,), "barn", "#000000")]
    with rasterio.open(image("EPSG:3857")) as raster:
        source = LabelSource([labels], class_field="kind", classes=table)
        values = source.open(labels, raster).read(Window(0, 0, 300, 200))
    assert set(np.unique(values)) == {5, 9, UNLABELLED}
    with pytest.raises(InputError, match="barn is in no row"):
        LabelSource([labels], class_field="kind", classes=table[:1])


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_windows_of_vectors_are_parts_of_the_whole(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("vectors")
    labels = write_geojson(folder / "labels.geojson")
    path = folder / "image.tif"
    profile = {"crs": "EPSG:3857", "transform": from_origin(22280, 6710300, 1.3, 1.3)}
    shape = {"height": 200, "width": 300, "count": 1, "dtype": "uint8", "driver": "GTiff"}
    with rasterio.open(path, "w", **shape, **profile):
        pass
    row, column = data.draw(st.integers(0, 199)), data.draw(st.integers(0, 299))
    window = Window(
        column, row, data.draw(st.integers(1, 300 - column)), data.draw(st.integers(1, 200 - row))
    )
    source = LabelSource([labels], class_field="kind")
    with rasterio.open(path) as raster:
        opened = source.open(labels, raster)
        whole = opened.read(Window(0, 0, 300, 200))
        np.testing.assert_array_equal(opened.read(window), whole[window.toslices()])


def test_windows_are_parts_of_the_whole_where_edges_lie_on_centres(make_raster, tmp_path):
    """Boxes from centre to centre of pixels of 0.1 m, whose places are no binary numbers."""
    grid, size = from_origin(500_000.3, 4_500_000.7, 0.1, 0.1), 600
    image = make_raster(np.zeros((1, size, size), np.uint8), crs="EPSG:32612", transform=grid)
    random, features = np.random.default_rng(0), []
    for value in range(1, 41):
        column, row = random.integers(0, size - 50, 2)
        width, height = random.integers(5, 50, 2)
        corners = ((0, 0), (0, height), (width, height), (width, 0), (0, 0))
        ring = [grid * (column + x + 0.5, row + y + 0.5) for x, y in corners]
        square = {"type": "Polygon", "coordinates": [ring]}
        features.append({"type": "Feature", "properties": {"kind": value}, "geometry": square})
    named = {"type": "name", "properties": {"name": "EPSG:32612"}}
    path = tmp_path / "labels.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": named, "features": features}))
    with rasterio.open(image) as raster:
        labels = LabelSource([str(path)], class_field="kind").open(str(path), raster)
    whole = labels.read(Window(0, 0, size, size))
    assert len(np.unique(whole)) > 30
    for row in range(0, size, 77):
        for column in range(0, size, 77):
            window = Window(column, row, min(77, size - column), min(77, size - row))
            np.testing.assert_array_equal(labels.read(window), whole[window.toslices()])


@pytest.mark.parametrize("suffix", ["gpkg", "shp", "fgb"])
@needs_gdal
def test_other_formats_are_read_through_ogr(image, tmp_path, suffix):
    pytest.importorskip("pyogrio")
    labels = write_geojson(tmp_path / "labels.geojson")
    other = tmp_path / f"labels.{suffix}"
    subprocess.run(["ogr2ogr", "-t_srs", "EPSG:3857", other, labels], check=True)
    with rasterio.open(image("EPSG:3857")) as raster:
        one, two = (
            LabelSource([str(path)], class_field="kind")
            .open(str(path), raster)
            .read(Window(0, 0, 300, 200))
            for path in (labels, other)
        )
    assert (one != two).mean() < 1e-4  # coordinates were rounded on the way


def test_the_crs_that_qgis_writes_into_geojson_counts(tmp_path):
    path = write_geojson(tmp_path / "l.geojson", crs="urn:ogc:def:crs:EPSG::32631")
    assert read_features(path).crs.to_epsg() == 32631
    path = write_geojson(tmp_path / "l.geojson", crs="urn:ogc:def:crs:OGC:1.3:CRS84")
    assert read_features(path).crs.to_epsg() == 4326


def write_square(path, crs):
    """Write a square of GeoJSON, with a member "crs"."""
    path.write_text(json.dumps({"type": "Polygon", "coordinates": SQUARE, "crs": crs}))
    return str(path)


def test_an_epsg_code_as_the_first_geojson_had_it_counts(tmp_path):
    path = write_square(tmp_path / "l.geojson", {"type": "EPSG", "properties": {"code": 32651}})
    assert read_features(path).crs.to_epsg() == 32651


@pytest.mark.parametrize(
    "crs",
    [
        "EPSG:4326",
        {"type": "name", "properties": None},
        {"type": "name", "properties": {"name": 32651}},
        {"type": "EPSG", "properties": {"code": "x"}},
        {"type": "link", "properties": {"href": "https://example.com/crs/42", "type": "proj4"}},
    ],
)
def test_a_crs_of_another_shape_is_refused(tmp_path, crs):
    path = write_square(tmp_path / "l.geojson", crs)
    with pytest.raises(InputError, match=r"its crs is .*, wanted is a name or an EPSG code"):
        read_features(path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"type": "FeatureCollection"}',
        '{"type": "FeatureCollection", "features": []}',
    ],
)
def test_a_file_without_features_is_refused(tmp_path, text):
    (tmp_path / "labels.geojson").write_text(text)
    with pytest.raises(InputError, match=r"labels\.geojson"):
        read_features(str(tmp_path / "labels.geojson"))


def test_a_missing_field_is_refused_with_those_that_are_there(tmp_path):
    labels = write_geojson(tmp_path / "labels.geojson")
    with pytest.raises(InputError, match=r"no feature of .* has a field class; there are: kind"):
        read_features(labels, "class")


def test_a_format_that_needs_pyogrio_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyogrio.errors", None)
    with pytest.raises(OptionError, match=r"\.gpkg files need pyogrio"):
        read_features(str(tmp_path / "labels.gpkg"))


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [
        ("uint8", 255),
        *((dtype, None) for dtype in ("uint8", "uint16", "int16", "int32", "float32")),
    ],
)
def test_rasters_are_warped_by_nearest(make_raster, noise, dtype, nodata):
    image = make_raster(
        np.zeros((1, 90, 120), np.uint8),
        crs="EPSG:32631",
        transform=from_origin(305_500, 5_709_700, 10, 10),
    )
    labels = make_raster(
        (noise(1, 70, 60) % 4).astype(dtype),
        "labels.tif",
        crs="EPSG:3857",
        transform=from_origin(22_500, 6_710_100, 13, 13),
        nodata=nodata,
    )
    with rasterio.open(image) as raster, rasterio.open(labels) as source:
        opened = RasterLabels(labels, raster)
        values = opened.read(Window(0, 0, 120, 90))
        parts = opened.read(Window(37, 20, 50, 60))
        options = {
            "crs": raster.crs,
            "transform": raster.transform,
            "width": 120,
            "height": 90,
            "resampling": Resampling.nearest,
            "tolerance": WARP_TOLERANCE,
        }
        with WarpedVRT(source, nodata=77, src_nodata=77, **options) as vrt:
            wanted = vrt.read(1).astype(np.uint16)
        opened.close()
    wanted[wanted == 77] = UNLABELLED
    assert 0.05 < (wanted == UNLABELLED).mean() < 0.95
    np.testing.assert_array_equal(values, wanted)
    np.testing.assert_array_equal(parts, wanted[20:80, 37:87])


def test_coarse_labels_end_where_they_do_on_the_ground(make_raster, noise):
    """Pixels of 3 km under labels of 0.5 degrees, compared with places reprojected one by one."""
    pixels, degrees = noise(360, 720), from_origin(-180, 90, 0.5, 0.5)
    labels = make_raster(pixels[None], "labels.tif", crs="EPSG:4326", transform=degrees)
    metres = from_origin(300_000, 4_700_000, 3000, 3000)
    image = make_raster(np.zeros((1, 100, 110), np.uint8), crs="EPSG:32612", transform=metres)
    with rasterio.open(image) as raster:
        found = RasterLabels(labels, raster).read(Window(0, 0, 110, 100))
    rows, columns = (a.ravel() + 0.5 for a in np.indices((100, 110)))
    places = transform("EPSG:32612", "EPSG:4326", *(a.tolist() for a in metres * (columns, rows)))
    column, row = (np.floor(a).astype(int) for a in ~degrees * tuple(map(np.array, places)))
    assert (found.ravel() != pixels[row, column]).sum() < 10  # of 11,000; by default GDAL gives 261


KINDS = ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"]
EMPTY = {
    **{kind: [None, 0, 9] for kind in KINDS},
    **{kind: [None, 0, 9, -9999] for kind in ("i2", "i4", "i8")},
    **{kind: [None, 0, 9, -9999, np.nan, -3.4e38] for kind in ("f4", "f8")},
}


@pytest.mark.parametrize(("dtype", "nodata"), [(k, v) for k in KINDS for v in EMPTY[k]])
def test_what_has_no_label_has_none_on_a_finer_grid_either(make_raster, dtype, nodata):
    """Three pixels without a label, by nodata or a mask, are 12 on a grid twice as fine."""
    pixels = np.tile(np.arange(1, 6), (5, 1)).astype(dtype)
    options = {"transform": from_origin(100, 60, 2, 2), "crs": "EPSG:32631"}
    if nodata is None:
        options["mask"] = np.full((5, 5), 255, np.uint8)
        options["mask"][2, 1:4] = 0
    else:
        pixels[2, 1:4] = options["nodata"] = nodata
    labels = make_raster(pixels[None], "labels.tif", **options)
    fine = {**options, "transform": from_origin(98, 60, 1, 1), "mask": None, "nodata": None}
    image = make_raster(np.zeros((1, 10, 12), np.uint8), **fine)
    wanted = np.full((10, 12), UNLABELLED)
    wanted[:, 2:] = np.tile(np.repeat(np.arange(1, 6), 2), (10, 1))
    wanted[4:6, 4:10] = UNLABELLED
    with rasterio.open(image) as raster:
        found = RasterLabels(labels, raster).read(Window(0, 0, 12, 10))
    np.testing.assert_array_equal(found, wanted)


def test_labels_without_area_are_refused(make_raster):
    image = make_raster(np.zeros((1, 20, 30), np.uint8))
    flat = {"transform": rasterio.Affine(0.15, 0.15, 500_000, -0.15, -0.15, 9_000_000)}
    labels = make_raster(np.zeros((1, 9, 9), np.uint8), "labels.tif", **flat)
    with rasterio.open(image) as raster, pytest.raises(InputError, match=r"labels\.tif"):
        RasterLabels(labels, raster)


def test_labels_of_the_same_size_without_georeference_are_on_the_grid(make_raster, tmp_path, noise):
    image = make_raster(np.zeros((1, 20, 30), np.uint8))
    pixels = noise(20, 30)
    png = str(tmp_path / "labels.png")
    warnings.simplefilter("ignore", NotGeoreferencedWarning)
    with rasterio.open(png, "w", driver="PNG", width=30, height=20, count=1, dtype="uint8") as out:
        out.write(pixels, 1)
    with rasterio.open(image) as raster:
        np.testing.assert_array_equal(RasterLabels(png, raster).read(Window(0, 0, 30, 20)), pixels)


def points_around(left, top):
    """Return ground control points of 30 x 20 px of 1 m."""
    corners = [(0, 0), (0, 30), (20, 0), (20, 30)]
    return [GroundControlPoint(row, col, left + col, top - row) for row, col in corners]


RPCS = {
    **dict.fromkeys(["height_off", "lat_off", "line_off", "long_off", "samp_off"], 5.0),
    **dict.fromkeys(["height_scale", "lat_scale", "line_scale", "long_scale", "samp_scale"], 2.0),
    **{f"{axis}_{part}_coeff": [1.0] * 20 for axis in ("line", "samp") for part in ("num", "den")},
}


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(
    ("there", "elsewhere"),
    [
        ({"gcps": points_around(5e5, 9e6)}, {"gcps": points_around(11e5, 9e6)}),
        ({"rpcs": RPC(**RPCS)}, {"rpcs": RPC(**{**RPCS, "lat_off": 6.0})}),
    ],
)
def test_labels_with_points_are_on_the_grid_of_an_image_with_the_same(
    make_raster, noise, there, elsewhere
):
    crs = CRS.from_epsg(32637) if "gcps" in there else None
    pixels, whole = noise(1, 20, 30), Window(0, 0, 30, 20)
    image = make_raster(pixels, "points.tif", transform=None, crs=crs, **there)
    labels = make_raster(pixels, "labels.tif", transform=None, crs=crs, **there)
    far = make_raster(pixels, "far.tif", transform=None, crs=crs, **elsewhere)
    with rasterio.open(image) as raster:
        np.testing.assert_array_equal(RasterLabels(labels, raster).read(whole), pixels[0])
    for other in (image, make_raster(pixels), make_raster(pixels, "bare.tif", transform=None)):
        with rasterio.open(other) as raster, pytest.raises(InputError, match="not those of"):
            RasterLabels(far, raster)


def test_a_transposed_grid_is_another_one(make_raster, noise):
    """Pixels (row, column) of labels are the image's (column, row)."""
    pixels, down = noise(1, 40, 40), rasterio.Affine(0, 10, 400_000, -10, 0, 4_500_000)
    image = make_raster(pixels, transform=from_origin(400_000, 4_500_000, 10, 10))
    labels = make_raster(pixels, "labels.tif", transform=down)
    with rasterio.open(image) as raster:
        found = RasterLabels(labels, raster).read(Window(0, 0, 40, 40))
    np.testing.assert_array_equal(found, pixels[0].T)


def test_labels_of_another_size_without_crs_are_refused(make_raster, noise):
    image = make_raster(np.zeros((1, 20, 30), np.uint8))
    labels = make_raster(noise(1, 21, 30), "labels.tif", crs=None)
    with rasterio.open(image) as raster, pytest.raises(InputError, match="has no CRS"):
        RasterLabels(labels, raster)


def test_labels_elsewhere_are_refused_with_both_extents(make_raster, tmp_path):
    image = make_raster(np.zeros((1, 20, 30), np.uint8))
    far = write_geojson(tmp_path / "far.geojson")
    raster_far = make_raster(np.zeros((1, 9, 9), np.uint8), "far.tif", crs="EPSG:32631")
    with rasterio.open(image) as raster:
        for labels in (far, raster_far):
            with pytest.raises(InputError, match="do not lie on") as error:
                LabelSource([labels]).open(labels, raster)
            assert "EPSG:32637" in str(error.value)
            assert str(error.value).count("extent ") == 2
            assert "they do not meet" in str(error.value)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32"])
def test_any_dtype_of_whole_numbers_will_do(make_raster, dtype):
    pixels = np.arange(64, dtype=dtype).reshape(1, 8, 8)
    labels = make_raster(pixels, "labels.tif", nodata=5)
    with rasterio.open(labels) as raster:
        values = RasterLabels(labels, raster).read(Window(0, 0, 8, 8))
    assert values.dtype == np.uint16
    wanted = pixels[0].astype(np.uint16)
    wanted[wanted == 5] = UNLABELLED
    np.testing.assert_array_equal(values, wanted)


@pytest.mark.parametrize(("dtype", "value"), [("int16", -1), ("int32", 65534), ("float32", 0.5)])
def test_values_that_are_no_classes_are_refused(make_raster, dtype, value):
    labels = make_raster(np.full((1, 8, 8), value, dtype), "labels.tif")
    with rasterio.open(labels) as raster, pytest.raises(InputError, match="whole numbers"):
        RasterLabels(labels, raster).read(Window(0, 0, 8, 8))


def test_complex_labels_are_refused(make_raster):
    labels = make_raster(np.zeros((1, 8, 8), "complex64"), "labels.tif")
    with rasterio.open(labels) as raster, pytest.raises(InputError, match="complex64"):
        RasterLabels(labels, raster)


def test_labels_of_several_bands_are_refused(make_raster, noise):
    labels = make_raster(noise(3, 8, 8), "labels.tif")
    with rasterio.open(labels) as raster, pytest.raises(InputError, match="there are 3 bands"):
        RasterLabels(labels, raster)


def test_labels_that_are_refused_are_closed(make_raster, noise, monkeypatch):
    opened = []
    monkeypatch.setattr(
        labels_module, "open_file", lambda path, _: opened.append(rasterio.open(path)) or opened[-1]
    )
    image = make_raster(np.zeros((1, 20, 30), np.uint8))
    several = make_raster(noise(3, 20, 30), "several.tif")
    far = make_raster(noise(1, 9, 9), "far.tif", crs="EPSG:32631")
    with rasterio.open(image) as raster:
        for path in (several, far):
            with pytest.raises(InputError):
                RasterLabels(path, raster)
    assert [file.closed for file in opened] == [True, True]


def test_ground_of_no_known_class_is_unlabelled(image, tmp_path):
    shapes = [(*shape, kind) for (*shape, _), kind in zip(SHAPES, ("a", None, "b"), strict=False)]
    with rasterio.open(image("EPSG:4326")) as raster:
        window, found = Window(0, 0, raster.width, raster.height), {}
        for name, some in (("all", shapes), ("known", [shapes[0], shapes[2]])):
            path = write_geojson(tmp_path / f"{name}.geojson", some)
            source = LabelSource([path], class_field="kind", outside="background")
            found[name] = source.open(path, raster).read(window)
    differs = found["all"] != found["known"]
    assert differs.any()
    assert (found["all"][differs] == UNLABELLED).all()


WORLD_LABELS = {west: from_origin(west, 90, 1, 1) for west in (-180, 0)}
EAST_OF_170 = from_origin(170, 10, 0.2, 0.2)


@pytest.mark.parametrize("west", WORLD_LABELS)
@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        pytest.param("EPSG:4326", from_origin(-100, 40, 0.3, 0.3), id="west of Greenwich"),
        pytest.param("EPSG:4326", from_origin(-15, 40, 0.3, 0.3), id="over Greenwich"),
        pytest.param("EPSG:4326", EAST_OF_170, id="over 180 degrees"),
        pytest.param("EPSG:4269", EAST_OF_170, id="over 180 degrees, of another datum"),
        pytest.param("EPSG:4272", EAST_OF_170, id="over 180 degrees, of one far off"),
        pytest.param("EPSG:3857", from_origin(-2e7, 1e7, 4e5, 2e5), id="nearly the world"),
        pytest.param("EPSG:32612", from_origin(3e5, 47e5, 3000, 3000), id="projected"),
        pytest.param("EPSG:32631", from_origin(0, 47e5, 3000, 3000), id="projected, on Greenwich"),
        pytest.param("EPSG:32660", from_origin(7e5, 12e5, 3000, 3000), id="projected, over 180"),
    ],
)
def test_labels_of_the_world_are_found_at_any_longitude(make_raster, noise, west, crs, transform):
    pixels = np.roll(noise(1, 180, 360) % 200, 180 if west else 0, 2)
    labels = make_raster(pixels, "world.tif", crs="EPSG:4326", transform=WORLD_LABELS[west])
    image = make_raster(np.zeros((1, 100, 100), np.uint8), crs=crs, transform=transform)
    columns, rows = np.meshgrid(np.arange(100) + 0.5, np.arange(100) + 0.5)
    x, y = (a.ravel().tolist() for a in transform * (columns, rows))
    x, y = np.array(rasterio.warp.transform(crs, "EPSG:4326", x, y))
    column, row = (x - west) % 360, 90 - y
    wanted = pixels[0, row.astype(int), column.astype(int)].reshape(100, 100)
    is_near_a_rim = np.minimum(abs(column - np.round(column)), abs(row - np.round(row))) < 0.13
    with rasterio.open(image) as raster:
        opened = RasterLabels(labels, raster)
        found = opened.read(Window(0, 0, 100, 100))
        np.testing.assert_array_equal(opened.read(Window(30, 20, 50, 60)), found[20:80, 30:80])
        opened.close()
    assert (found != UNLABELLED).all()
    assert not ((found != wanted) & ~is_near_a_rim.reshape(100, 100)).any()


def test_labels_of_a_projection_over_180_degrees_are_found(make_raster):
    where = {"crs": "EPSG:32660", "transform": from_origin(7e5, 12e5, 3000, 3000)}
    labels = make_raster(np.full((1, 100, 110), 7, np.uint8), "utm.tif", **where)
    image = make_raster(np.zeros((1, 40, 99), np.uint8), crs="EPSG:4326", transform=EAST_OF_170)
    longitude, latitude = np.meshgrid(170.1 + 0.2 * np.arange(99), 9.9 - 0.2 * np.arange(40))
    places = longitude.ravel().tolist(), latitude.ravel().tolist()
    x, y = np.array(rasterio.warp.transform("EPSG:4326", "EPSG:32660", *places)).reshape(2, 40, 99)
    wanted = (x > 7e5) & (x < 10.3e5) & (y > 9e5) & (y < 12e5)
    with rasterio.open(image) as raster:
        found = RasterLabels(labels, raster).read(Window(0, 0, 99, 40)) == 7
    assert wanted.any()
    assert (found != wanted).mean() < 0.01  # an eighth of a pixel, along the rim


def test_the_last_feature_counts_over_180_degrees_too(make_raster, tmp_path):
    boxes = {1: (-180, -178), 2: (178, 182), 3: (-179, -178)}
    features = [
        {
            "type": "Feature",
            "properties": {"kind": kind},
            "geometry": {
                "type": "Polygon",
                "coordinates": [[[west, -1], [east, -1], [east, 1], [west, 1], [west, -1]]],
            },
        }
        for kind, (west, east) in boxes.items()
    ]
    path = tmp_path / "labels.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    image = make_raster(np.zeros((1, 100, 100), np.uint8), crs="EPSG:4326", transform=EAST_OF_170)
    with rasterio.open(image) as raster:
        opened = LabelSource([str(path)], class_field="kind").open(str(path), raster)
        row = opened.read(Window(0, 49, 100, 1))[0]
    wanted = np.full(100, UNLABELLED)
    wanted[40:60], wanted[55:60] = 2, 3  # from 178 to 182 degrees, and from 181
    np.testing.assert_array_equal(row, wanted)


def test_labels_that_share_hardly_any_ground_are_refused(make_raster):
    image = make_raster(np.zeros((1, 20, 30), np.uint8), transform=from_origin(5e5, 9e6, 1, 1))
    corner = from_origin(500_029, 8_999_981, 1, 1)
    labels = make_raster(np.zeros((1, 20, 20), np.uint8), "corner.tif", transform=corner)
    with rasterio.open(image) as raster, pytest.raises(InputError, match="share less than 1 %"):
        RasterLabels(labels, raster)


def test_polygons_have_no_place_where_all_pixels_lie_on_a_line(make_raster, tmp_path):
    line = rasterio.Affine(1, 2, 5e5, 2, 4, 9e6)
    image = make_raster(np.zeros((1, 20, 30), np.uint8), transform=line)
    labels = write_geojson(tmp_path / "labels.geojson")
    with rasterio.open(image) as raster, pytest.raises(InputError, match="has no inverse"):
        LabelSource([labels]).open(labels, raster)
