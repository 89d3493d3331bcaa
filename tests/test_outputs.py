"""What comes out beside the mask, and where."""

import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasterio.enums import Resampling
from rasterio.features import rasterize
from rasterio.warp import transform_geom
from rio_cogeo import cog_validate
from scipy.special import softmax
from test_predict import read_mask, untiled_logits

from fcntile.errors import InputError, OptionError, OutputError
from fcntile.models.model_file import load_model
from fcntile.predict import predict
from fcntile.raster.parts import parts_folder

NAMES = ["probabilities", "confidence", "entropy", "logits"]


def paths(folder):
    return {name: folder / f"{name}.tif" for name in NAMES}


@pytest.fixture
def seen(make_raster, make_model, noise):
    """Return a raster with holes, a model, and the logits that each pixel must have."""
    pixels, valid = noise(3, 700, 900), noise(700, 900, seed=1) < 200
    model = make_model("pixel", classes=4)
    logits = untiled_logits(load_model(model), pixels) / 1
    return make_raster(pixels, mask=valid), model, logits, valid


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_products_are_the_softmax_of_the_untiled_logits(seen, tmp_path, dtype):
    image, model, logits, valid = seen
    predict(image, tmp_path / "mask.tif", model=model, products=paths(tmp_path), dtype=dtype)
    p = softmax(logits.astype(np.float64), axis=0)
    tolerance = {"uint8": 0.5 / 254 + 1e-6, "float16": 5e-4, "float32": 1e-5}[dtype]
    for name, wanted in (("probabilities", p), ("confidence", p.max(0)[None])):
        with rasterio.open(tmp_path / f"{name}.tif") as raster:
            values = raster.read() * raster.scales[0] + raster.offsets[0]
            assert np.abs(values - wanted)[:, valid].max() <= tolerance
            shown = raster.read_masks() > 0
            assert (shown == valid).all()
            if name == "probabilities":
                assert raster.descriptions == tuple(f"class {i}" for i in range(4))
    assert np.array_equal(read_mask(tmp_path / "mask.tif"), np.where(valid, logits.argmax(0), 255))
    with rasterio.open(tmp_path / "logits.tif") as raster:
        scale = np.abs(logits).max()
        assert np.abs(raster.read() - logits)[:, valid].max() <= (dtype == "float16") * scale / 2048
        bits = raster.tags(1, ns="IMAGE_STRUCTURE").get("NBITS")
        assert (bits == "16") == (dtype == "float16")
    for path in paths(tmp_path).values():
        assert cog_validate(path, strict=True)[0]
    assert not parts_folder(tmp_path / "mask.tif").exists()


def test_overviews_of_probabilities_are_means(seen, tmp_path):
    image, model, _, _ = seen
    out = {"confidence": tmp_path / "c.tif"}
    predict(image, tmp_path / "mask.tif", model=model, products=out, dtype="float32")
    with rasterio.open(tmp_path / "c.tif") as raster:
        expected = raster.read(1, out_shape=(350, 450), resampling=Resampling.average)
    with rasterio.open(tmp_path / "c.tif", overview_level=0) as overview:
        made = overview.read(1)
    assert np.nanmax(np.abs(made - expected)) < 1e-5


def test_a_threshold_is_recorded_and_obeyed(seen, tmp_path):
    image, model, logits, valid = seen
    predict(image, tmp_path / "mask.tif", model=model, threshold="class 2=0.2")
    p = softmax(logits.astype(np.float64), axis=0)
    rest = np.where(np.arange(4)[:, None, None] == 2, -1, p).argmax(0)
    expected = np.where(p[2] >= 0.2, 2, rest)
    clear = valid & (np.abs(p[2] - 0.2) > 1e-6)
    assert np.array_equal(read_mask(tmp_path / "mask.tif")[clear], expected[clear])
    with rasterio.open(tmp_path / "mask.tif") as mask:
        options = json.loads(mask.tags()["FCNTILE_OPTIONS"])
    assert options["threshold"] == {"position": 2, "probability": 0.2}


@pytest.mark.parametrize(
    ("threshold", "words"),
    [
        ("0.4", "say of which class, such as class 3=0.4"),
        ("lake=0.4", "no class is called 'lake'"),
        ("class 1=1.4", "neither a probability"),
        ("many", "neither a probability"),
    ],
)
def test_a_threshold_that_means_nothing_is_refused(seen, tmp_path, threshold, words):
    with pytest.raises(OptionError, match=words):
        predict(seen[0], tmp_path / "mask.tif", model=seen[1], threshold=threshold)


@pytest.mark.parametrize("suffix", [".ovr", ".msk", ".aux.xml"])
@pytest.mark.parametrize("of", ["mask", "raster"])
def test_an_output_that_would_belong_to_another_file_is_refused(seen, tmp_path, suffix, of):
    image, model, *_ = seen
    name = f"{tmp_path / 'mask.tif' if of == 'mask' else image}{suffix}"
    with pytest.raises(OutputError, match="would belong to"):
        predict(image, tmp_path / "mask.tif", model=model, products={"entropy": name})
    assert not list(tmp_path.glob("mask.tif*"))


def test_what_a_run_reads_is_never_replaced(seen, tmp_path):
    image, model, *_ = seen
    area = write_area(tmp_path / "area.geojson")
    for path, what in ((image, "input"), (model, "model"), (area, "area of interest")):
        before = Path(path).read_bytes()
        for dry_run in (False, True):
            with pytest.raises(OutputError, match=f"is the {what}"):
                predict(image, path, model=model, aoi=area, overwrite=True, dry_run=dry_run)
        assert Path(path).read_bytes() == before


def test_what_a_run_reads_by_another_file_is_never_replaced(seen, tmp_path):
    image, model, *_ = seen
    folder = tmp_path / "files"
    folder.mkdir()
    own = shutil.copy(image, folder / "image.tif")
    archive, inner, outer = (folder / name for name in ("a.zip", "inner.xml", "outer.vrt"))
    with zipfile.ZipFile(archive, "w") as opened:
        opened.write(own, "image.tif")
    rasterio.shutil.copy(own, inner, driver="VRT")
    outer.write_text(inner.read_text().replace(">image.tif<", ">inner.xml<"))
    for raster, path in (
        (outer, own),
        (outer, inner),
        (f"zip+file://{archive}!image.tif", archive),
        (f"/vsizip/{archive}/image.tif", archive),
    ):
        before = Path(path).read_bytes()
        with pytest.raises(OutputError, match="is the input, or a part of it"):
            predict(raster, path, model=model, overwrite=True)
        assert Path(path).read_bytes() == before


def test_options_that_would_change_the_grid_are_refused(seen, tmp_path):
    for name in ("TARGET_SRS", "target_srs", "RES"):
        with pytest.raises(OptionError, match=f"--co {name.upper()} would change the grid"):
            options = {name: "EPSG:3857"}
            predict(seen[0], tmp_path / "m.tif", model=seen[1], creation_options=options)


def test_a_dry_run_refuses_creation_options_too(seen, tmp_path):
    with pytest.raises(OptionError, match="cannot be written with"):
        more = {"creation_options": {"compress": "nope"}, "dry_run": True}
        predict(seen[0], tmp_path / "mask.tif", model=seen[1], **more)


def test_an_area_without_a_name_is_no_area(seen, tmp_path):
    with pytest.raises(OptionError, match="without a name"):
        predict(seen[0], tmp_path / "mask.tif", model=seen[1], aoi="")


def test_two_outputs_in_one_file_are_refused(seen, tmp_path):
    out = tmp_path / "mask.tif"
    with pytest.raises(OptionError, match="two outputs"):
        predict(seen[0], out, model=seen[1], products={"entropy": out})


TRIANGLE = [(500_020.0, 8_999_985.0), (500_090.0, 8_999_990.0), (500_060.0, 8_999_930.0)]


def write_area(path, crs="EPSG:32637", points=TRIANGLE):
    geometry = {"type": "Polygon", "coordinates": [[*points, points[0]]]}
    if crs != "EPSG:32637":
        geometry = transform_geom("EPSG:32637", crs, geometry)
    member = {"type": "name", "properties": {"name": crs}}
    feature = {"type": "Feature", "properties": {}, "geometry": geometry}
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": member, "features": [feature]}))
    return str(path)


@pytest.mark.parametrize("crs", ["EPSG:32637", "EPSG:4326", "EPSG:3857"])
def test_outside_the_area_of_interest_there_is_no_data(seen, tmp_path, crs):
    image, model, logits, valid = seen
    area = write_area(tmp_path / "area.geojson", crs)
    more = {"probabilities": tmp_path / "p.tif"}
    summary = predict(image, tmp_path / "m.tif", model=model, aoi=area, tile=64, overlap=0)
    predict(image, tmp_path / "n.tif", model=model, aoi=area, tile=64, overlap=16, products=more)
    with rasterio.open(image) as raster:
        shape = {"type": "Polygon", "coordinates": [[*TRIANGLE, TRIANGLE[0]]]}
        inside = rasterize([shape], raster.shape, transform=raster.transform) > 0
    assert 0.05 < inside.mean() < 0.6
    found = read_mask(tmp_path / "m.tif")
    expected = np.where(valid & inside, logits.argmax(0), 255)
    assert (found != expected).mean() < (0 if crs == "EPSG:32637" else 1e-3) + 1e-9
    assert np.array_equal(read_mask(tmp_path / "n.tif"), found)
    with rasterio.open(tmp_path / "p.tif") as p:
        assert np.array_equal(p.read_masks(1) > 0, found != 255)
    touched = sum(
        (valid & inside)[y : y + 64, x : x + 64].any()
        for y in range(0, 700, 64)
        for x in range(0, 900, 64)
    )
    if crs == "EPSG:32637":
        assert summary.tiles - summary.skipped_tiles == touched


def test_parts_beside_the_area_are_not_even_read(make_raster, make_model, noise, tmp_path):
    """A raster of three parts, of which the area touches the second."""
    pixels = np.maximum(noise(3, 6000, 1024), 1)
    options = {"compress": "lzw", "tiled": True, "blockxsize": 512, "blockysize": 512}
    image, model = Path(make_raster(pixels, nodata=0, **options)), make_model("pixel", classes=4)
    points = [(500_020.0, 9_000_000 - 0.15 * y) for y in (2300, 2900)] + [(500_090.0, 8_999_600.0)]
    area = write_area(tmp_path / "area.geojson", points=points)
    grid = {"model": model, "overlap": 128}
    all_tiles = predict(str(image), tmp_path / "whole.tif", **grid).tiles
    summary = predict(str(image), tmp_path / "part.tif", aoi=area, **grid)
    assert summary.parts == 3
    assert summary.tiles < 30 < all_tiles
    whole, part = read_mask(tmp_path / "whole.tif"), read_mask(tmp_path / "part.tif")
    assert 0 < (part != 255).mean() < 0.2
    assert np.array_equal(part[part != 255], whole[part != 255])
    assert (part[:2048] == 255).all()
    assert (part[4096:] == 255).all()


def test_an_area_may_be_large_and_touch_a_corner(seen, tmp_path):
    image, model, *_ = seen
    with rasterio.open(image) as raster:
        left, _, _, top = raster.bounds
        x, y = left + 10 * raster.res[0], top - 10 * raster.res[1]
    points = [(x - 15_000, y), (x - 15_000, y + 15_000), (x, y + 15_000), (x, y)]
    area = write_area(tmp_path / "area.geojson", points=points)
    predict(image, tmp_path / "m.tif", model=model, aoi=area)
    assert 0 < (read_mask(tmp_path / "m.tif") != 255).sum() <= 100


def test_the_net_sees_what_is_beside_the_area(orthophoto, tmp_path):
    """The mask inside an area is that of the whole raster there."""
    predict(orthophoto, tmp_path / "whole.tif")
    with rasterio.open(orthophoto) as raster:
        left, bottom, right, top = raster.bounds
        points = [(left, top), (right, (bottom + top) / 2), (left, bottom)]
        crs = raster.crs.to_string()
    geometry = {"type": "Polygon", "coordinates": [[*points, points[0]]]}
    member = {"type": "name", "properties": {"name": crs}}
    feature = {"type": "Feature", "properties": {}, "geometry": geometry}
    area = tmp_path / "a.json"
    area.write_text(json.dumps({"type": "FeatureCollection", "crs": member, "features": [feature]}))
    predict(orthophoto, tmp_path / "part.tif", aoi=str(area))
    whole, part = read_mask(tmp_path / "whole.tif"), read_mask(tmp_path / "part.tif")
    assert 0.3 < (part == 255).mean() < 0.7
    assert np.array_equal(part[part != 255], whole[part != 255])


@pytest.mark.parametrize(
    ("bounds", "error", "words"),
    [
        ((5, 1, 2, 9), OptionError, "not left, bottom, right, top"),
        ((0, 0, 1, 1), InputError, "hold no pixel"),
        ((-1e308, 1e307, 1e308, 1e308), InputError, "hold no pixel"),
    ],
)
def test_bounds_that_hold_nothing_are_refused(seen, tmp_path, bounds, error, words):
    with pytest.raises(error, match=words):
        predict(seen[0], tmp_path / "mask.tif", model=seen[1], bounds=bounds)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("not json", r"cannot read the polygons .*area\.json"),
        ('{"type": "FeatureCollection", "features": []}', "have no feature"),
        (None, "do not lie on"),
    ],
)
def test_an_area_that_cannot_be_used_is_refused(seen, tmp_path, text, words):
    area = tmp_path / "area.json"
    if text is None:
        write_area(area, points=[(x + 1e5, y) for x, y in TRIANGLE])
    else:
        area.write_text(text)
    with pytest.raises(InputError, match=words):
        predict(seen[0], tmp_path / "mask.tif", model=seen[1], aoi=str(area))
    assert not (tmp_path / "mask.tif.parts").exists()


def test_bounds_of_a_rotated_raster_are_refused(tmp_path, make_model):
    rotated = Path(__file__).parent / "data" / "rotated.tif"
    with rasterio.open(rotated) as raster:
        model = make_model("pixel", bands=raster.count, dtype=raster.dtypes[0])
        bidx = list(raster.indexes)
    with pytest.raises(OptionError, match="--aoi"):
        predict(str(rotated), tmp_path / "m.tif", model=model, bidx=bidx, bounds=(0, 0, 9, 9))


def test_a_dry_run_writes_nothing_and_says_what_it_would_cost(orthophoto, tmp_path):
    before = sorted(tmp_path.iterdir())
    command = [sys.executable, "-m", "fcntile", "predict", orthophoto, "-o", tmp_path / "mask.tif"]
    run = subprocess.run([*command, "--dry-run", "--json"], capture_output=True, check=True)
    said = json.loads(run.stdout)
    assert (said["width"], said["height"], said["tiles"], said["empty_tiles"]) == (512, 1024, 3, 0)
    assert said["compute_factor"] == pytest.approx(1.778, abs=1e-3)
    assert 300 < said["memory_mb"] < 2000
    assert 0 < said["seconds"] < 60
    text = subprocess.run([*command, "--dry-run"], capture_output=True, check=True, text=True)
    assert "512 x 1024 px" in text.stdout
    assert "3 of 512 px, overlap 128" in text.stdout
    assert sorted(tmp_path.iterdir()) == before


def test_a_dry_run_tries_tiles_that_have_data(make_raster, make_model, noise, tmp_path):
    """In the middle there is none, which would make the run look free."""
    valid = np.zeros((1280, 1280), bool)
    valid[:200, :200] = True
    image = make_raster(noise(3, 1280, 1280), mask=valid)
    options = {"model": make_model("probe"), "tile": 64, "overlap": 0, "dry_run": True}
    some = predict(image, tmp_path / "m.tif", **options)
    every = predict(make_raster(noise(3, 1280, 1280), "full.tif"), tmp_path / "m.tif", **options)
    assert 0.9 < some.empty_tiles / some.tiles < 1
    per_tile = [f.seconds / (f.tiles - f.empty_tiles) for f in (some, every)]
    assert per_tile[0] > 0.2 * per_tile[1]


def test_outputs_may_lie_on_different_file_systems(seen, tmp_path):
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is only one file system")
    with tempfile.TemporaryDirectory(dir=shm) as folder:
        there = Path(folder) / "entropy.tif"
        predict(seen[0], tmp_path / "mask.tif", model=seen[1], products={"entropy": there})
        with rasterio.open(there) as entropy:
            assert entropy.shape == seen[3].shape
        assert [p.name for p in Path(folder).iterdir()] == ["entropy.tif"]


def test_a_creation_option_that_changes_floats_is_refused_before_any_work(seen, tmp_path):
    with pytest.raises(OptionError, match="would change the pixels"):
        predict(
            seen[0],
            tmp_path / "mask.tif",
            model=seen[1],
            products={"confidence": tmp_path / "c.tif"},
            dtype="float32",
            creation_options={"compress": "lerc", "max_z_error": "0.01"},
        )


def test_a_dry_run_counts_empty_tiles(make_raster, make_model, noise, tmp_path):
    valid = np.zeros((640, 640), bool)
    valid[:320] = True
    image = make_raster(noise(3, 640, 640), mask=valid)
    said = predict(
        image, tmp_path / "m.tif", model=make_model("pixel"), tile=64, overlap=0, dry_run=True
    )
    assert (said.tiles, said.empty_tiles) == (100, 50)
