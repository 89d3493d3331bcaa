import json
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.rpc import RPC
from rasterio.windows import Window
from rio_cogeo import cog_validate

from fcntile.errors import OptionError, OutputError
from fcntile.raster.assembly import Assembly, _create_empty
from fcntile.raster.creation import check_outputs
from fcntile.raster.gdal import files_of, open_raster
from fcntile.raster.outputs import NODATA, Output, mask_dtype
from fcntile.raster.part_files import PartWriter
from fcntile.raster.parts import open_parts, parts_folder, plan_parts

CLASSES = [(0, "meadow", (0, 128, 0)), (1, "lake", (0, 0, 255)), (2, "road", (90, 90, 90))]


def with_values(*values):
    """Return as many classes, with these values."""
    return [(v, name, rgb) for v, (_, name, rgb) in zip(values, CLASSES, strict=True)]


def write_mask(path, like, mask, rows=100, classes=CLASSES, part=(512, 512), extent=None, **more):
    """Write a mask in parts, each in blocks of that many rows."""
    dtype = mask_dtype(v for v, _, _ in classes)
    output = Output("mask", path, dtype, NODATA[dtype], ("class",), {"MADE_BY": "test"}, classes)
    height, width = mask.shape
    extent = extent or Window(0, 0, width, height)
    with (
        open_raster(like) as raster,
        open_parts([output], {}, plan_parts(extent, *part)) as parts,
    ):
        driver, options = more.get("driver", "COG"), more.get("creation_options")
        check_outputs([output], {"the input": files_of(raster)}, driver, options)
        assembly = Assembly(parts, raster, extent, **more)
        for window in parts.missing():
            writer = PartWriter(parts.folder, [output], window)
            y, x = window.row_off - extent.row_off, window.col_off - extent.col_off
            here = mask[y : y + window.height, x : x + window.width]
            for row in range(0, len(here), rows):
                writer.write([here[None, row : row + rows]])
            parts.add(writer.finish())
        assembly.finish()


def random_mask(height, width, values=(0, 1, 2, 255), dtype=np.uint8):
    return np.random.default_rng(0).choice(np.array(values, dtype), (height, width))


@pytest.mark.parametrize("driver", ["COG", "GTiff"])
@pytest.mark.parametrize(("height", "width", "rows"), [(1, 1, 1), (1300, 600, 384), (512, 513, 7)])
def test_a_mask_comes_back_as_it_was(make_raster, noise, tmp_path, driver, height, width, rows):
    mask = random_mask(height, width)
    out = tmp_path / "mask.tif"
    write_mask(out, make_raster(noise(1, height, width)), mask, rows, driver=driver)
    with rasterio.open(out) as written:
        assert np.array_equal(written.read(1), mask)
        assert (written.dtypes, written.nodata) == (("uint8",), 255)
        assert written.compression.name == "deflate"
        if height > 512:
            assert written.block_shapes == [(512, 512)]
        assert written.tags()["MADE_BY"] == "test"
        assert written.colormap(1)[1] == (0, 0, 255, 255)
        assert written.colormap(1)[255] == (0, 0, 0, 0)
        assert written.descriptions == ("class",)
        assert written.tags(1)["CLASS_1"] == "lake"


def test_the_default_is_a_cloud_optimized_geotiff(make_raster, noise, tmp_path):
    out = tmp_path / "mask.tif"
    write_mask(out, make_raster(noise(1, 1300, 1200)), random_mask(1300, 1200))
    assert cog_validate(out, strict=True) == (True, [], [])


def test_overviews_are_by_majority(make_raster, noise, tmp_path):
    mask = np.zeros((1024, 1024), np.uint8)
    mask[::2, ::2] = 2  # one in four: nearest would see nothing else
    write_mask(tmp_path / "mask.tif", make_raster(noise(1, 1024, 1024)), mask)
    with rasterio.open(tmp_path / "mask.tif", overview_level=0) as overview:
        assert (overview.read(1) == 0).all()


@pytest.mark.parametrize("driver", ["COG", "GTiff"])
@pytest.mark.parametrize(
    ("values", "dtype", "nodata"),
    [
        ((11, 21, 42), "uint8", 255),
        ((2, 1, 254), "uint8", 255),
        ((0, 254, 255), "uint16", 65535),
        ((255, 256, 65533), "uint16", 65535),
    ],
)
def test_class_values_keep_their_names_and_colours(
    make_raster, noise, tmp_path, driver, values, dtype, nodata
):
    mask = random_mask(600, 700, (*values, nodata), dtype)
    out, like = tmp_path / "mask.tif", make_raster(noise(1, 600, 700))
    options = {"compress": "zstd"}  # so that they are tried first
    classes = with_values(*values)
    write_mask(out, like, mask, classes=classes, driver=driver, creation_options=options)
    with rasterio.open(out) as written:
        assert (written.dtypes, written.nodata) == ((dtype,), nodata)
        assert np.array_equal(written.read(1), mask)
        assert np.array_equal(written.read_masks(1) > 0, mask != nodata)
        names = {key: v for key, v in written.tags(1).items() if key.startswith("CLASS_")}
        assert names == {f"CLASS_{v}": name for v, name, _ in classes}
        colors = written.colormap(1)
        assert [colors[v] for v in values] == [(*rgb, 255) for _, _, rgb in classes]
        assert colors[nodata] == (0, 0, 0, 0)
    if driver == "COG":
        assert cog_validate(out, strict=True) == (True, [], [])


def test_uint16_overviews_are_by_majority_too(make_raster, noise, tmp_path):
    mask = np.full((1024, 1024), 255, np.uint16)
    mask[::2, ::2] = 300
    out, classes = tmp_path / "mask.tif", with_values(0, 255, 300)
    write_mask(out, make_raster(noise(1, 1024, 1024)), mask, classes=classes)
    with rasterio.open(out, overview_level=0) as overview:
        assert (overview.read(1) == 255).all()


def test_rows_of_another_dtype_are_not_wrapped(make_raster, noise, tmp_path):
    with pytest.raises(AssertionError, match="wrap"):
        write_mask(tmp_path / "m.tif", make_raster(noise(1, 9, 9)), np.full((9, 9), 256, "uint16"))


@pytest.mark.skipif(shutil.which("gdalinfo") is None, reason="gdalinfo is not installed")
@pytest.mark.parametrize("values", [(11, 21, 42), (0, 255, 300)])
def test_gdalinfo_finds_names_and_colours_by_value(make_raster, noise, tmp_path, values):
    classes, out = with_values(*values), tmp_path / "mask.tif"
    mask = random_mask(600, 600, values, "uint8" if max(values) < 255 else "uint16")
    write_mask(out, make_raster(noise(1, 600, 600)), mask, classes=classes)
    shown = subprocess.run(["gdalinfo", "-json", out], capture_output=True, text=True, check=True)
    (band,) = json.loads(shown.stdout)["bands"]
    names = {value: name for value, name in enumerate(band["categories"]) if name}
    assert names == {value: name for value, name, _ in classes}
    colors = band["colorTable"]["entries"]
    assert [colors[value] for value in values] == [[*rgb, 255] for _, _, rgb in classes]


@pytest.mark.skipif(shutil.which("gdalinfo") is None, reason="gdalinfo is not installed")
def test_gdalinfo_shows_classes_and_colours(make_raster, noise, tmp_path):
    out = tmp_path / "mask.tif"
    write_mask(out, make_raster(noise(1, 600, 600)), random_mask(600, 600))
    shown = subprocess.run(["gdalinfo", out], capture_output=True, text=True, check=True).stdout
    for line in ("0: meadow", "1: lake", "2: road", "2: 90,90,90,255", "LAYOUT=COG"):
        assert line in shown


GEOREFERENCES = {
    "rotated": {"transform": Affine.translation(5e5, 9e6) * Affine.rotation(30)},
    "south up": {"transform": Affine(0.15, 0, 5e5, 0, 0.15, 9e6)},
    "not square": {"transform": Affine(0.15, 0, 5e5, 0, -0.4, 9e6)},
    "no CRS": {"crs": None},
    "GCPs": {
        "transform": None,
        "gcps": [
            GroundControlPoint(row, col, x=5e5 + 0.15 * col, y=9e6 - 0.2 * row)
            for row in (0, 600)
            for col in (0, 700)
        ],
    },
    "GCPs without a CRS": {
        "crs": CRS(),
        "transform": None,
        "gcps": [GroundControlPoint(r, c, x=3 + c, y=9 - r) for r in (0, 600) for c in (0, 700)],
    },
    "RPCs": {
        "crs": None,
        "transform": None,
        "rpcs": RPC(
            **{
                f"{axis}_{what}": 1.5
                for axis in ("lat", "long", "height", "line", "samp")
                for what in ("off", "scale")
            },
            line_num_coeff=[0.1 * i for i in range(20)],
            line_den_coeff=[1.0] + [0.0] * 19,
            samp_num_coeff=[0.2 * i for i in range(20)],
            samp_den_coeff=[1.0] + [0.0] * 19,
            err_bias=0.5,
            err_rand=0.5,
        ),
    },
}


@pytest.mark.parametrize("driver", ["COG", "GTiff"])
@pytest.mark.parametrize("kind", GEOREFERENCES)
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_the_georeference_is_that_of_the_raster(make_raster, noise, tmp_path, kind, driver):
    path = make_raster(noise(1, 600, 700), **GEOREFERENCES[kind])
    out = tmp_path / "mask.tif"
    write_mask(out, path, random_mask(600, 700), driver=driver)
    with rasterio.open(path) as raster, rasterio.open(out) as mask:
        assert mask.transform == raster.transform
        for corner in [(0, 0), (0, 700), (600, 0), (600, 700)]:
            assert mask.xy(*corner) == raster.xy(*corner)
        assert mask.crs == raster.crs
        assert (mask.rpcs and mask.rpcs.to_dict()) == (raster.rpcs and raster.rpcs.to_dict())
        (gcps, gcps_crs), (wanted, wanted_crs) = mask.gcps, raster.gcps
        assert gcps_crs == wanted_crs
        assert [(g.row, g.col, g.x, g.y) for g in gcps] == [
            (g.row, g.col, g.x, g.y) for g in wanted
        ]


@pytest.mark.parametrize("driver", ["COG", "GTiff"])
@pytest.mark.parametrize("meaning", ["Area", "Point"])
def test_what_a_pixel_stands_for_stays(make_raster, noise, tmp_path, meaning, driver):
    path, out = make_raster(noise(1, 600, 700)), tmp_path / "mask.tif"
    with rasterio.open(path, "r+") as raster:
        raster.update_tags(AREA_OR_POINT=meaning)
    write_mask(out, path, random_mask(600, 700), driver=driver)
    with rasterio.open(path) as raster, rasterio.open(out) as mask:
        assert mask.tags()["AREA_OR_POINT"] == raster.tags()["AREA_OR_POINT"] == meaning
        assert mask.transform == raster.transform


def test_a_transform_counts_more_than_points_beside_it(make_raster, noise, tmp_path):
    """A GeoTIFF has either, a VRT and a sidecar may have both."""
    both, out = str(tmp_path / "both.vrt"), tmp_path / "mask.tif"
    rasterio.shutil.copy(make_raster(noise(1, 60, 70)), both, driver="VRT")
    tree = ET.parse(both)
    points = ET.SubElement(tree.getroot(), "GCPList", Projection="EPSG:4326")
    for i, (x, y) in enumerate([(0, 0), (70, 0), (0, 60)]):
        ET.SubElement(points, "GCP", Id=str(i), Pixel=f"{x}", Line=f"{y}", X=f"{x}", Y=f"{y}")
    tree.write(both)
    write_mask(out, both, random_mask(60, 70))
    with rasterio.open(both) as raster, rasterio.open(out) as mask:
        assert raster.gcps[0]
        assert (mask.transform, mask.crs) == (raster.transform, raster.crs)


def test_creation_options_reach_gdal(make_raster, noise, tmp_path):
    like = make_raster(noise(1, 600, 600))
    for driver, options in (("COG", {"blocksize": "256"}), ("GTiff", {"blockxsize": "256"})):
        out = tmp_path / f"{driver}.tif"
        options = {"compress": "zstd", **options}
        write_mask(out, like, random_mask(600, 600), driver=driver, creation_options=options)
        with rasterio.open(out) as mask:
            assert mask.compression.name == "zstd"
            assert mask.block_shapes[0][1] == 256


def test_an_output_may_have_any_name(make_raster, noise, tmp_path):
    like = make_raster(noise(1, 9, 9))
    for name in ("rows.tif", "whole", "trial.tif"):
        write_mask(tmp_path / name, like, random_mask(9, 9))
        assert (tmp_path / name).exists()


def test_the_same_rows_give_the_same_bytes(make_raster, noise, tmp_path):
    like, mask = make_raster(noise(1, 900, 700)), random_mask(900, 700)
    write_mask(tmp_path / "a.tif", like, mask, rows=1)
    write_mask(tmp_path / "b.tif", like, mask, rows=900, threads=4, part=(1024, 1024))
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


def test_an_unfinished_part_leaves_nothing(make_raster, noise, tmp_path):
    out, mask = tmp_path / "mask.tif", random_mask(600, 600)
    output = Output("mask", out, "uint8", 255, ("class",), {}, CLASSES)
    with (
        pytest.raises(AssertionError, match="rows are missing"),
        open_parts([output], {}, [Window(0, 0, 600, 600)]) as parts,
    ):
        writer = PartWriter(parts.folder, [output], parts.windows[0])
        writer.write([mask[None, :550]])
        writer.finish()
    assert not list(tmp_path.iterdir())


def test_a_clipped_output_lies_where_its_pixels_do(make_raster, noise, tmp_path):
    mask, extent = random_mask(300, 500), Window(150, 200, 500, 300)
    points = GEOREFERENCES["GCPs"] | {"name": "gcps.tif"}
    like = make_raster(noise(1, 600, 700)), make_raster(noise(1, 600, 700), **points)
    for n, path in enumerate(like):
        out = tmp_path / f"mask{n}.tif"
        write_mask(out, path, mask, extent=extent)
        with rasterio.open(path) as raster, rasterio.open(out) as made:
            assert np.array_equal(made.read(1), mask)
            if n == 0:
                assert made.xy(0, 0) == raster.xy(200, 150)
            else:
                moved = [(g.row + 200, g.col + 150, g.x, g.y) for g in made.gcps[0]]
                assert moved == [(g.row, g.col, g.x, g.y) for g in raster.gcps[0]]


def test_a_replaced_mask_takes_its_sidecars_along(make_raster, noise, tmp_path):
    out = tmp_path / "mask.tif"
    for suffix in ("", ".ovr", ".msk", ".aux.xml"):
        Path(f"{out}{suffix}").write_text("of an older mask")
    write_mask(out, make_raster(noise(1, 9, 9)), random_mask(9, 9))
    assert {p.name for p in tmp_path.iterdir()} == {"image.tif", "mask.tif", "mask.tif.aux.xml"}
    assert "meadow" in Path(f"{out}.aux.xml").read_text()


def test_the_raster_itself_is_never_replaced(make_raster, noise):
    path = make_raster(noise(1, 9, 9))
    before = Path(path).read_bytes()
    with pytest.raises(OutputError, match="is the input"):
        write_mask(Path(path), path, random_mask(9, 9))
    assert Path(path).read_bytes() == before
    assert not parts_folder(Path(path)).exists()


def test_rpcs_move_alike_for_every_output(make_raster, noise, tmp_path):
    rpcs = GEOREFERENCES["RPCs"]["rpcs"]
    image = make_raster(noise(1, 50, 60), rpcs=rpcs)
    extent = Window(20, 10, 30, 40)
    with open_raster(image) as raster:
        for _ in range(2):
            output = Output("mask", tmp_path / "m.tif", "uint8", 255, ("class",), {}, CLASSES)
            _create_empty(tmp_path / "empty.tif", output, raster, extent)
            with rasterio.open(tmp_path / "empty.tif") as empty:
                moved = empty.rpcs
            assert (rpcs.line_off - moved.line_off, rpcs.samp_off - moved.samp_off) == (10, 20)


@pytest.mark.parametrize(
    ("driver", "options"),
    [
        ("COG", {"compress": "ZTSD"}),
        ("COG", {"compression": "ZSTD"}),
        ("COG", {"overview_compress": "JPEG"}),
        ("COG", {"overview_resampling": "banana"}),
        ("GTiff", {"pixeltype": "SIGNEDBYTE"}),
    ],
)
def test_creation_options_that_gdal_does_not_obey_are_refused(
    make_raster, noise, tmp_path, driver, options
):
    like = make_raster(noise(1, 60, 70))
    with pytest.raises(OptionError, match=driver):
        write_mask(
            tmp_path / "m.tif", like, random_mask(60, 70), driver=driver, creation_options=options
        )


@pytest.mark.parametrize("resampling", ["nearest", "mode", "average", "cubic"])
def test_overviews_may_be_made_in_many_ways(make_raster, noise, tmp_path, resampling):
    like, out = make_raster(noise(1, 60, 70)), tmp_path / "m.tif"
    options = {"overview_resampling": resampling, "compress": "zstd"}
    write_mask(out, like, random_mask(60, 70), creation_options=options)
    assert out.exists()
