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

WIDTH, HEIGHT = 400, 300
UTM_12 = "EPSG:32612", Affine(30, 0, 400000, 0, -30, 4500000)
UTM_60 = "EPSG:32660", Affine(120, 0, 788000, 0, -120, 1145000)  # on both sides of 180 degrees
POLAR = "EPSG:3413", Affine(1000, 0, -200300, 0, -1000, 150300)
MERCATOR = "EPSG:3857", Affine(100000, 0, -20000000, 0, -100000, 15000000)
COARSE = "EPSG:32612", Affine(500, 0, 400000, 0, -500, 4600000)
ROTATED = "EPSG:32612", Affine(25, 10, 400000, 10, -25, 4500000)


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
    ],
)
def test_polygons_are_where_they_are_on_the_ground(tmp_path, where, boxes):
    inside, (x, y) = area(tmp_path, where, polygons(*boxes))
    expected = np.zeros_like(inside)
    for left, bottom, right, top in boxes:
        expected |= (x >= left) & (x <= right) & (y >= bottom) & (y <= top)
    assert expected.any()
    rim = sum(abs(np.diff(expected.astype(int), axis=axis)).sum() for axis in (0, 1))
    assert (inside != expected).sum() <= 0.1 * rim + 2  # a tenth of a pixel, along its rim


def test_a_polygon_that_goes_on_beyond_180_degrees(tmp_path):
    inside, _ = area(tmp_path, UTM_60, polygons((179, 0, 181, 20)))
    assert inside.all()


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
