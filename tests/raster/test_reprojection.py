"""Polygons of another CRS on a raster, against the place of each pixel's centre in that CRS."""

import json

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.warp import transform
from rasterio.windows import Window

from fcntile.errors import InputError
from fcntile.raster.area import Area
from fcntile.raster.labels import VectorLabels
from fcntile.raster.vectors import read_features

WIDTH, HEIGHT = 400, 300
UTM_12 = "EPSG:32612", Affine(30, 0, 400000, 0, -30, 4500000)
UTM_60 = "EPSG:32660", Affine(120, 0, 788000, 0, -120, 1145000)  # on both sides of 180 degrees
POLAR = "EPSG:3413", Affine(1000, 0, -200300, 0, -1000, 150300)
MERCATOR = "EPSG:3857", Affine(100000, 0, -20000000, 0, -100000, 15000000)
COARSE = "EPSG:32612", Affine(500, 0, 400000, 0, -500, 4600000)
ROTATED = "EPSG:32612", Affine(25, 10, 400000, 10, -25, 4500000)
WORLD = "EPSG:4326", Affine(0.9, 0, -180, 0, -0.5, 75)
WORLD_FROM_0 = "EPSG:4326", Affine(0.9, 0, 0, 0, -0.6, 90)
WORLD_FROM_170_WEST = "EPSG:4326", Affine(0.9, 0, -170, 0, -0.5, 75)
WORLD_IN_NAD83 = "EPSG:4269", WORLD[1]
HALF = 20037508.342789244  # of the equator, m
WORLD_IN_MERCATOR = "EPSG:3857", Affine(HALF / 200, 0, -HALF, 0, -1e5, 15e6)
WORLD_FROM_80_WEST = "+proj=cea +lon_0=100", Affine(HALF / 200, 0, -HALF, 0, -4e4, 6e6)
TO_180 = "EPSG:3857", Affine(12500, 0, HALF - 5e6, 0, -12500, 2e6)
OVER_180 = "EPSG:4326", Affine(0.05, 0, 170, 0, -0.05, 8)
FROM_180 = "EPSG:4326", Affine(0.05, 0, -180, 0, -0.05, 8)
FROM_A_SATELLITE = (
    "+proj=geos +lon_0=-75 +h=35786023 +ellps=GRS80 +sweep=x",
    Affine(30000, 0, -6000000, 0, -40000, 6000000),
)
IN_EUROPE, IN_THE_USA = (0, 40, 10, 50), (-100, 30, -90, 40)


def ring(left, bottom, right, top):
    return [[left, bottom], [right, bottom], [right, top], [left, top], [left, bottom]]


def polygons(*boxes):
    return {"type": "MultiPolygon", "coordinates": [[ring(*box)] for box in boxes]}


def area(folder, where, geometry, crs="EPSG:4326"):
    """Return which pixels are inside, and the coordinates of all."""
    raster, file = folder / "raster.tif", folder / "area.geojson"
    member = {"type": "name", "properties": {"name": crs}}
    feature = {"type": "Feature", "properties": {}, "geometry": geometry}
    file.write_text(json.dumps({"type": "FeatureCollection", "crs": member, "features": [feature]}))
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "sparse_ok": True}
    profile |= {"width": WIDTH, "height": HEIGHT, "crs": where[0], "transform": where[1]}
    with rasterio.open(raster, "w", **profile):
        pass
    with rasterio.open(raster) as source:
        inside = Area(str(file), source).read(Window(0, 0, WIDTH, HEIGHT))
    columns, rows = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    x, y = (a.ravel().tolist() for a in where[1] * (columns, rows))
    return inside, np.array(transform(where[0], crs, x, y)).reshape(2, HEIGHT, WIDTH)


@pytest.mark.parametrize(
    ("where", "boxes"),
    [
        pytest.param(UTM_12, [(-112.1, 40.5, -112, 40.6)], id="small"),
        pytest.param(UTM_12, [(-114.5, 40.6, -107.5, 43)], id="edges longer than the raster"),
        pytest.param(COARSE, [(-114.5, 40.7, -107.5, 41)], id="edges that bend by many pixels"),
        pytest.param(ROTATED, [(-114, 40.5, -110, 40.65)], id="rotated"),
        pytest.param(UTM_12, [(-180, -90, 180, 90)], id="the whole world"),
        pytest.param(MERCATOR, [(-180, -90, 180, 90)], id="the whole world on the world"),
        pytest.param(MERCATOR, [(-100, -10, 20, 40)], id="on the world"),
        pytest.param(UTM_60, [(179, 0, 180, 20)], id="east of the 180th meridian"),
        pytest.param(UTM_60, [(-180, 0, -179, 20)], id="west of it"),
        pytest.param(UTM_60, [(179, 0, 180, 20), (-180, 0, -179, 20)], id="cut at it"),
        pytest.param(POLAR, [(-180, 89, 180, 90)], id="around the pole"),
        pytest.param(POLAR, [(10, 88, 100, 90)], id="from the pole"),
        pytest.param(WORLD, [(170, -45, 178, -35), IN_EUROPE], id="at the world's rim"),
        pytest.param(WORLD, [(170, -20, 190, -10)], id="over the world's rim"),
        pytest.param(WORLD_IN_NAD83, [(170, -20, 180, -10), IN_EUROPE], id="of another datum"),
        pytest.param(WORLD_FROM_0, [IN_THE_USA, IN_EUROPE], id="the world from 0 to 360"),
        pytest.param(WORLD_FROM_0, [IN_THE_USA], id="the world from 0 to 360, west only"),
        pytest.param(
            WORLD_FROM_170_WEST, [(170, -20, 180, -10), (-180, 0, -170, 10)], id="from 170 west"
        ),
        pytest.param(WORLD_IN_MERCATOR, [(170, -45, 178, -35), IN_EUROPE], id="in Mercator"),
        pytest.param(WORLD_IN_MERCATOR, [(170, -45, 190, -35)], id="over the rim of Mercator"),
        pytest.param(WORLD_FROM_80_WEST, [IN_THE_USA, (-75, -20, 0, 0)], id="cut elsewhere"),
        pytest.param(
            TO_180,
            [(-180, 0, -170, 10), (150, 0, 160, 10)],
            id="beyond the rim is no ground",
        ),
        pytest.param(OVER_180, [(-178, -2, -172, 2)], id="as -178, on a raster up to 190"),
        pytest.param(FROM_180, [(181, -2, 185, 2)], id="as 181, on a raster from -180"),
    ],
)
def test_polygons_are_where_they_are_on_the_ground(tmp_path, where, boxes):
    inside, (x, y) = area(tmp_path, where, polygons(*boxes))
    expected = np.zeros_like(inside)
    for left, bottom, right, top in boxes:
        is_between = (x - left) % 360 <= right - left
        expected |= is_between & (y >= bottom) & (y <= top)
    assert expected.any()
    rim = sum(abs(np.diff(expected.astype(int), axis=axis)).sum() for axis in (0, 1))
    assert (inside != expected).sum() <= 0.1 * rim + 2  # a tenth of a pixel, along its rim


def test_a_polygon_that_goes_on_beyond_180_degrees(tmp_path):
    inside, _ = area(tmp_path, UTM_60, polygons((179, 0, 181, 20)))
    assert inside.all()


@pytest.mark.parametrize(
    "where", [OVER_180, FROM_180, WORLD], ids=["170 to 190", "-180 to -160", "the world"]
)
def test_a_polygon_of_a_projection_over_180_degrees(tmp_path, where):
    box = 700000, 100000, 1000000, 600000  # from 178.8 to 181.5 degrees
    inside, (x, y) = area(tmp_path, where, polygons(box), "EPSG:32660")
    expected = (x >= box[0]) & (x <= box[2]) & (y >= box[1]) & (y <= box[3])
    assert expected.any()
    rim = sum(abs(np.diff(expected.astype(int), axis=axis)).sum() for axis in (0, 1))
    assert (inside != expected).sum() <= 0.1 * rim + 2


def test_a_polygon_of_a_projection_around_a_pole_is_refused_on_longitudes(tmp_path):
    with pytest.raises(InputError, match="a polygon goes around a pole: cut it"):
        area(tmp_path, WORLD, polygons((-2e6, -2e6, 2e6, 2e6)), "EPSG:3413")


def test_an_edge_over_a_cut_of_the_projection_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"is cut near .*: cut what crosses there first"):
        area(tmp_path, TO_180, polygons((700000, 100000, 1000000, 600000)), "EPSG:32660")


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_polygons_beyond_what_a_satellite_sees_are_refused_however_often(tmp_path):
    for _ in range(30):  # GDAL itself complains of the first few only
        with pytest.raises(InputError, match="100 0 is beyond this projection: clip to"):
            area(tmp_path, FROM_A_SATELLITE, polygons((-75, 0, 100, 40)))


def test_edges_are_straight_in_their_own_crs(tmp_path):
    box = -12700000, 4930000, -12000000, 4960000
    inside, (x, y) = area(tmp_path, UTM_12, polygons(box), "EPSG:3857")
    expected = (x >= box[0]) & (x <= box[2]) & (y >= box[1]) & (y <= box[3])
    assert 0 < expected.sum() < expected.size
    assert (inside != expected).sum() < 0.1 * 2 * WIDTH


def test_a_concave_polygon_with_a_hole_is_cut_off_around_the_raster(tmp_path):
    outer = [[-120, 35], [-100, 35], [-100, 50], [-112.15, 50], [-112.15, 35.1]]
    outer += [[-112.13, 35.1], [-112.13, 49], [-120, 49], [-120, 35]]
    hole = ring(-112.1, 40.55, -112.08, 40.6)
    inside, (x, y) = area(tmp_path, UTM_12, {"type": "Polygon", "coordinates": [outer, hole]})
    notch = (x > -112.15) & (x < -112.13)
    expected = ~notch & ~((x > -112.1) & (x < -112.08) & (y > 40.55) & (y < 40.6))
    assert notch.any()
    assert (inside != expected).sum() < 60


@pytest.mark.parametrize(
    ("geometry", "message"),
    [
        (polygons((-114, 38, -113.9, 38.1), (-110, 43, -109.9, 43.1)), "no polygon of .* lies on"),
        ({"type": "LineString", "coordinates": [[-112.1, 40.5], [-112, 40.6]]}, "has a LineString"),
        ({"type": "Point", "coordinates": [-112.1, 40.5]}, "has a Point"),
    ],
)
def test_an_area_that_is_none_is_refused(tmp_path, geometry, message):
    with pytest.raises(InputError, match=message):
        area(tmp_path, UTM_12, geometry)


@pytest.mark.parametrize(
    ("where", "side"),
    [(WORLD, 9e6), (WORLD, 15e6), (WORLD, HALF), (OVER_180, HALF), (FROM_180, HALF)],
)
def test_a_polygon_of_a_projection_with_edges_around_half_the_world(tmp_path, where, side):
    """Such an edge looks like one that crosses the 180th meridian."""
    inside, (x, y) = area(tmp_path, where, polygons((-side, -9e6, side, 9e6)), "EPSG:3857")
    np.testing.assert_array_equal(inside, (abs(x) <= side) & (abs(y) <= 9e6))


def test_lines_that_end_at_a_cut_or_go_on_beyond_what_a_projection_knows(tmp_path):
    raster, file = tmp_path / "raster.tif", tmp_path / "lines.geojson"
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "width": WIDTH, "height": HEIGHT}
    lines = [[[179, -17], [180, -17]], [[-180, 10], [-179, 10]], [[-120, 40], [-120, 60], [90, 60]]]
    geometry = {"type": "MultiLineString", "coordinates": lines}
    file.write_text(json.dumps({"type": "Feature", "properties": {}, "geometry": geometry}))
    for crs, place in (WORLD_IN_MERCATOR, ("EPSG:5070", Affine(9000, 0, -2e6, 0, -9000, 3e6))):
        with rasterio.open(raster, "w", crs=crs, transform=place, **profile):
            pass
        with rasterio.open(raster) as like:
            labels = VectorLabels(read_features(str(file)), {}, 0, like, 0)
            burned = labels.read(Window(0, 0, WIDTH, HEIGHT)) == 1
        rows, columns = np.nonzero(burned)
        x, y = place * (columns + 0.5, rows + 0.5)
        longitudes, latitudes = np.array(transform(crs, "EPSG:4326", x.tolist(), y.tolist()))
        pixel = 1.5 * abs(place.a) / 111_000 * 2  # degrees, with room for the middle latitudes
        near = (abs(longitudes + 120) < pixel) & (latitudes > 39)
        for latitude in (-17, 10, 60):
            near |= abs(latitudes - latitude) < pixel
        assert burned.any() and near.all()
