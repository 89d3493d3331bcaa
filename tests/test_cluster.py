"""Runs whose parts are made by Dask workers: the bytes are those of one process."""

import ctypes
import gc
import json
import os
import pickle
import random
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain, product
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

import numpy as np
import pytest
import rasterio
from conftest import DATA, DEMO
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import NARROW, save_test_model
from program import FCNTILE, assert_refused
from rasterio.windows import Window, intersect

from fcntile.cli.leaving import LAST
from fcntile.errors import InputError, OptionError, OutOfMemoryError, Stopped
from fcntile.inference.cluster import connection
from fcntile.inference.cluster.crew import Crew
from fcntile.inference.cluster.flights import Flights
from fcntile.inference.cluster.local_workers import FORKSERVER, local_client
from fcntile.inference.cluster.stretches import Stretches, choose_cuts, divide
from fcntile.inference.job import union, walks
from fcntile.inference.memory import resident_bytes
from fcntile.inference.tiling import Axis, Tiling
from fcntile.predict import predict
from fcntile.raster.parts import parts_folder, plan_parts

pytest.importorskip("distributed")
GRID = {"tile": 256, "overlap": 64}


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A raster, a model that any process knows, and the mask that one process makes."""
    folder = tmp_path_factory.mktemp("scene")
    image, model, mask = (str(folder / name) for name in ("image.tif", "net.safetensors", "m.tif"))
    with rasterio.open(DEMO / "philippines_1.tif") as demo:
        pixels = np.tile(demo.read(), (1, 2, 5))[:, :1300, :2300]
        grid = {"crs": demo.crs, "transform": demo.transform}
    size = {"count": 3, "height": 1300, "width": 2300, "dtype": "uint8"}
    with rasterio.open(image, "w", driver="GTiff", **size, **grid) as raster:
        raster.write(pixels)
    save_test_model(model, "fcn8s-small", arch_options=NARROW)
    predict(image, mask, model=model, **GRID)
    return image, model, Path(mask).read_bytes()


@pytest.fixture
def small_parts(monkeypatch):
    """Cut runs in 18 parts of three swaths; workers are told by the client."""
    monkeypatch.setattr(
        "fcntile.predict.plan_parts", lambda extent, rows, columns: plan_parts(extent, 256, 1024)
    )


@contextmanager
def process(*command):
    """Run a process of Dask's on this code, until the test is over."""
    env = {**os.environ, "PYTHONPATH": str(Path(connection.__file__).parents[3])}
    started = subprocess.Popen([sys.executable, "-m", *command], env=env)
    try:
        yield started
    finally:
        started.kill()
        started.wait()


def worker(file):
    """Return a worker process, without the nanny that would start it again."""
    local = ["--local-directory", str(Path(file).parent), "--no-dashboard"]
    return process(
        "distributed.cli.dask_worker",
        "--scheduler-file",
        file,
        "--nthreads=1",
        "--no-nanny",
        *local,
    )


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory):
    """A scheduler and two workers, each a process of its own; the file that has its address."""
    file = str(tmp_path_factory.mktemp("dask") / "scheduler.json")
    options = ["--scheduler-file", file, "--host=127.0.0.1", "--port=0", "--no-dashboard"]
    with process("distributed.cli.dask_scheduler", *options), worker(file), worker(file):
        wait_for_file(file)
        yield file


def wait_for_file(file):
    while not Path(file).exists():
        time.sleep(0.1)


def address(file):
    return json.loads(Path(file).read_text())["address"]


def stop_after(parts):
    """Return a progress that ends a run once some parts are finished."""
    calls = iter(range(parts - 1, -1, -1))

    def progress(done, total):
        if next(calls) == 0:
            raise KeyboardInterrupt

    return progress


def test_two_local_workers_make_the_bytes_of_one_process(scene, tmp_path, small_parts, caplog):
    image, model, mask = scene
    out, seen = tmp_path / "mask.tif", []
    with caplog.at_level(0):
        made = predict(
            image,
            out,
            model=model,
            **GRID,
            workers=2,
            progress=lambda done, total: seen.append((done, total)),
        )
    assert out.read_bytes() == mask
    assert not parts_folder(out).exists()
    assert made.parts == len(seen) == 18 and made.resumed_parts == 0
    assert seen == sorted(seen) and seen[-1][0] == seen[-1][1]
    assert made.tiles >= seen[-1][1] > 0 and made.stage_seconds["infer"] > 0
    assert "dashboard: http://127.0.0.1:" in caplog.text


def test_the_dashboard_is_there_for_who_asks(scene, tmp_path, small_parts, caplog):
    image, model, _ = scene
    pages, direct = [], build_opener(ProxyHandler({}))

    def ask(done, total):
        if not pages:
            link = re.search(r"dashboard: (http\S+)", caplog.text)[1]
            for _ in range(2):
                with direct.open(link, timeout=60) as page:
                    pages.append((page.url, page.read().decode()))

    with caplog.at_level(0):
        predict(image, tmp_path / "mask.tif", model=model, **GRID, workers=2, progress=ask)
    assert len(pages) == 2
    for url, text in pages:
        assert url.endswith("/status") and "bokeh" in text


def test_in_bfloat16_too(scene, tmp_path, small_parts):
    image, model, _ = scene
    options = {"model": model, **GRID, "precision": "bf16"}
    predict(image, tmp_path / "a.tif", **options)
    predict(image, tmp_path / "b.tif", **options, workers=2)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


OUTPUTS = ("probabilities", "entropy")


@pytest.fixture(scope="module")
def holes(scene, tmp_path_factory):
    """The scene with nodata, where rows of tiles meet too, and all outputs of one process."""
    folder = tmp_path_factory.mktemp("holes")
    image = str(folder / "image.tif")
    with rasterio.open(scene[0]) as raster:
        pixels, profile = raster.read()[:, :, :2293], raster.profile
    pixels[:, 350:620, 100:900] = 0
    pixels[:, :, 2000:] = 0
    with rasterio.open(image, "w", **profile | {"nodata": 0, "width": 2293}) as raster:
        raster.write(pixels)
    return image, made_of(image, scene[1], folder)


def made_of(image, model, folder, **options):
    """Predict, and return the bytes of all outputs and the number of tiles."""
    files = {name: folder / f"{name}.tif" for name in OUTPUTS}
    mask = folder / "mask.tif"
    options = {"model": model, **GRID, "products": files, "dtype": "float32", **options}
    made = predict(image, mask, **options)
    return [path.read_bytes() for path in (mask, *files.values())], made.tiles


def test_workers_infer_a_tile_twice_only_where_the_row_that_is_left_over_is_cut(
    scene, holes, tmp_path, scheduler, monkeypatch
):
    image, (files, tiles) = holes
    # nobody helps a worker that the machine keeps from working: that costs a row of tiles
    monkeypatch.setattr(Stretches, "_has_own_rows", lambda stretches, window: False)
    wait_for_workers(scheduler, 2)
    made, by_workers = made_of(image, scene[1], tmp_path, scheduler=address(scheduler))
    assert made == files
    assert by_workers == tiles + 1, "seven rows of tiles: three for each worker, and one for both"


def test_a_run_that_workers_have_divided_is_gone_on_with_by_one_process(
    scene, holes, tmp_path, scheduler
):
    image, (files, _) = holes
    wait_for_workers(scheduler, 2)
    with pytest.raises(KeyboardInterrupt):
        made_of(image, scene[1], tmp_path, scheduler=address(scheduler), progress=stop_after(2))
    manifest = json.loads((parts_folder(tmp_path / "mask.tif") / "manifest.json").read_text())
    assert sum(width * height for *_, width, height in manifest["windows"]) == 2293 * 1300
    widths = [width for _, _, width, _ in manifest["windows"]]
    assert len(widths) == 8 and sum(width < 2293 for width in widths) == 2, "of three parts"
    assert made_of(image, scene[1], tmp_path)[0] == files


@pytest.mark.parametrize("after", range(3, 9))
def test_a_signal_while_the_last_parts_arrive_ends_the_run_in_order(
    scene, tmp_path, scheduler, after
):
    image, model, mask = scene
    out, options = tmp_path / "m.tif", {"model": model, **GRID, "scheduler": address(scheduler)}
    calls = iter(range(1, 100))

    def progress(done, total):
        if next(calls) == after:
            os.kill(os.getpid(), signal.SIGTERM)

    wait_for_workers(scheduler, 2)
    with suppress(Stopped):
        predict(image, out, **options, progress=progress)
    predict(image, out, **options, overwrite=True)
    assert out.read_bytes() == mask


def test_workers_go_on_with_a_run_of_which_all_parts_are_made(
    scene, tmp_path, scheduler, monkeypatch
):
    image, model, mask = scene
    options = {"model": model, **GRID, "scheduler": address(scheduler)}

    def interrupted(assembly):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("fcntile.predict.Assembly.finish", interrupted)
        predict(image, tmp_path / "m.tif", **options)
    made = predict(image, tmp_path / "m.tif", **options)
    assert made.resumed_parts == made.parts and made.tiles == 0
    assert (tmp_path / "m.tif").read_bytes() == mask


def test_what_workers_are_forked_from_is_imported_there_alone():
    assert FORKSERVER not in sys.modules  # pytest would end with 0 by it, whatever failed


def test_local_workers_look_for_garbage_but_not_among_what_was_imported():
    with local_client(1, "fcntile.predict", on_gpus=False) as client:
        assert all(client.run(gc.isenabled).values())
        assert min(client.run(gc.get_freeze_count).values()) > 100_000


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's")
def test_all_threads_of_a_local_worker_share_one_heap():
    def place(_):
        """Say by the bits beside a large map's size whether it is outside the first heap."""
        large = np.empty(100_000_000, np.uint8)
        time.sleep(0.1)  # all are there at once
        return ctypes.c_size_t.from_address(large.ctypes.data - 8).value & 0b110

    def places():
        with ThreadPoolExecutor(8) as threads:
            return set(threads.map(place, range(8)))

    with local_client(1, "fcntile.predict", on_gpus=False) as client:
        assert list(client.run(places).values()) == [{0}]


def test_workers_do_not_finish_what_takes_longer_than_a_stopped_run_has_to_leave():
    with (
        pytest.raises(KeyboardInterrupt),
        local_client(2, "fcntile.predict", on_gpus=False) as client,
    ):
        parts = [client.submit(time.sleep, seconds) for seconds in (60, 61)]
        while sum(map(len, client.processing().values())) < len(parts):
            time.sleep(0.1)
        start = time.monotonic()
        raise KeyboardInterrupt
    assert time.monotonic() - start < LAST  # Dask would give them some seconds more


def test_local_workers_take_no_package_from_the_working_directory(scene, tmp_path):
    image, model, mask = scene
    (tmp_path / "tlz.py").write_text("raise SystemExit('a file of the user')")  # a module of Dask's
    command = [Path(sys.executable).with_name("fcntile"), "predict", image, "-o", "mask.tif"]
    grid = [f"--{name}={pixels}" for name, pixels in GRID.items()]
    subprocess.run([*command, "--model", model, "--workers=1", *grid], cwd=tmp_path, check=True)
    assert (tmp_path / "mask.tif").read_bytes() == mask


@pytest.mark.parametrize(("columns", "after"), [(1024, 2), (4096, 1), (4096, 3), (4096, 5)])
def test_a_worker_killed_in_the_middle_costs_nothing_but_time(
    scene, tmp_path, scheduler, monkeypatch, columns, after
):
    image, model, mask = scene
    monkeypatch.setattr(
        "fcntile.predict.plan_parts", lambda extent, *size: plan_parts(extent, 256, columns)
    )
    out, finished = tmp_path / "mask.tif", []
    with worker(scheduler) as third:
        wait_for_workers(scheduler, 3)

        def progress(done, total):
            finished.append(done)
            if len(finished) == after:  # each worker has parts in the making
                os.kill(third.pid, signal.SIGKILL)

        predict(image, out, model=model, **GRID, scheduler=address(scheduler), progress=progress)
        assert third.wait(5) == -signal.SIGKILL
    # of six parts each cut at a junction makes two more, and the last two are in three columns
    assert len(finished) == (18 if columns == 1024 else 6 + 3 * 2 + 2 * 2)
    assert out.read_bytes() == mask


@pytest.mark.parametrize("after", [1, 4])
def test_when_all_workers_are_killed_new_ones_go_on(scene, tmp_path, small_parts, after):
    image, model, mask = scene
    out, finished, file = tmp_path / "mask.tif", [], str(tmp_path / "scheduler.json")
    options = ["--scheduler-file", file, "--host=127.0.0.1", "--port=0", "--no-dashboard"]
    with ExitStack() as stack:
        stack.enter_context(process("distributed.cli.dask_scheduler", *options))
        workers = [stack.enter_context(worker(file)) for _ in range(2)]
        wait_for_file(file)
        wait_for_workers(file, 2)

        def progress(done, total):
            finished.append(done)
            if len(finished) == after:
                for process in workers:
                    process.kill()
                stack.enter_context(worker(file))

        predict(image, out, model=model, **GRID, scheduler=address(file), progress=progress)
    assert out.read_bytes() == mask


def test_a_part_that_no_worker_survives_ends_the_run(tmp_path):
    """As if the system killed each for lack of memory."""
    from distributed import Client

    window, file = Window(0, 0, 9, 9), str(tmp_path / "scheduler.json")
    options = ["--scheduler-file", file, "--host=127.0.0.1", "--port=0", "--no-dashboard"]
    with ExitStack() as stack:
        stack.enter_context(process("distributed.cli.dask_scheduler", *options))
        wait_for_file(file)
        client = stack.enter_context(Client(address(file), set_as_default=False))
        flights = Flights(client, pickle.dumps(None))
        flights.ask_for_part("tcp://127.0.0.1:1", [window], shares=False)
        assert (flights.busy(), flights.in_the_making()) == (["tcp://127.0.0.1:1"], [window])
        with pytest.raises(OutOfMemoryError, match="died over the same part again and again"):
            for _ in range(4):
                flights.take_off_again()


def wait_for_workers(file, count):
    from distributed import Client

    with Client(address(file), set_as_default=False) as client:
        client.wait_for_workers(count, timeout=60)


def test_parts_of_one_process_are_taken_over_by_workers_and_the_other_way_round(
    scene, tmp_path, small_parts, scheduler
):
    image, model, mask = scene
    alone, shared = tmp_path / "alone.tif", tmp_path / "shared.tif"
    options = {"model": model, **GRID}
    dask = {"scheduler": address(scheduler)}
    with pytest.raises(KeyboardInterrupt):
        predict(image, alone, **options, progress=stop_after(50))  # tiles
    with pytest.raises(KeyboardInterrupt):
        predict(image, shared, **options, **dask, progress=stop_after(5))  # parts
    for path in (alone, shared):
        assert 1 < len(list(parts_folder(path).glob("*.tif"))) < 18
    made = predict(image, alone, **options, **dask), predict(image, shared, **options)
    assert made[0].resumed_parts > 1 and made[1].resumed_parts == 5
    assert alone.read_bytes() == shared.read_bytes() == mask


def refused_by_a_worker(model, out, *option):
    command = [*FCNTILE, "predict", DATA / "corrupt.tif", "-o", out, "--model", model, *option]
    run = subprocess.run(command, capture_output=True, text=True)
    assert_refused(run, 3, "cannot read rows", "corrupt.tif")
    dashboard, *kept, _ = run.stderr.splitlines()
    assert dashboard.startswith("NOTE: dashboard: ")
    # another worker may have finished a part that is whole before
    assert all("parts are kept" in line for line in kept) and len(kept) < 2
    assert not out.exists() and parts_folder(out).exists() == bool(kept)


def test_what_a_worker_says_is_said_by_the_client(scene, tmp_path, scheduler):
    refused_by_a_worker(scene[1], tmp_path / "mask.tif", "--scheduler", address(scheduler))


@pytest.mark.slow
def test_what_a_local_worker_says_is_said_once(scene, tmp_path):
    refused_by_a_worker(scene[1], tmp_path / "mask.tif", "--workers", "1")


def test_a_worker_that_has_another_raster_refuses(scene, tmp_path, scheduler, monkeypatch):
    image, model, _ = scene
    monkeypatch.setattr("fcntile.predict.identify", lambda raster: {"width": 1})
    with pytest.raises(InputError, match=r"^worker on .* not what the client has: its raster was"):
        predict(image, tmp_path / "m.tif", model=model, **GRID, scheduler=address(scheduler))
    assert not parts_folder(tmp_path / "m.tif").exists()


def test_a_worker_of_another_version_is_refused(scene, tmp_path, scheduler, monkeypatch):
    from distributed import Client

    before = Client.get_versions

    def versions(self, **options):
        found = before(self, **options)
        found["client"]["packages"]["fcntile"] = "0.0.1"
        return found

    monkeypatch.setattr(Client, "get_versions", versions)
    image, model, _ = scene
    with pytest.raises(OptionError, match=r"has fcntile .*, not 0\.0\.1 as here"):
        predict(image, tmp_path / "m.tif", model=model, **GRID, scheduler=address(scheduler))


def test_no_scheduler_is_said_in_one_sentence(scene, tmp_path, monkeypatch):
    from distributed import Client

    image, model, _ = scene
    monkeypatch.setattr(connection, "CONNECTING", 1)
    for nowhere in ("tcp://127.0.0.1:1", "nonsense://"):
        with pytest.raises(InputError, match=f"no Dask scheduler answers at {nowhere}") as refused:
            predict(image, tmp_path / "m.tif", model=model, scheduler=nowhere)
        # whose frames hold the client, which would hang if it were closed as garbage later
        clients = [c for c in gc.get_objects() if issubclass(type(c), Client)]
        assert refused.tb and {client.status for client in clients} == {"closed"}


def test_options_that_cannot_be(scene, tmp_path):
    image, model, _ = scene
    with pytest.raises(OptionError, match="not both"):
        predict(image, tmp_path / "m.tif", model=model, workers=2, scheduler="tcp://h:1")
    with pytest.raises(OptionError, match="--workers 0 is not 1 or more"):
        predict(image, tmp_path / "m.tif", model=model, workers=0)


def test_threads_and_memory_are_shared_among_local_workers():
    crew = Crew(2, None)
    assert crew.make_plan("cpu", "auto", None, 5).threads == 2
    assert crew.make_plan("cpu", "auto", None, 1).threads == 1
    assert crew.memory(8e9) == pytest.approx((8e9 - resident_bytes()) / 2, rel=0.01)


def test_a_bound_that_nobody_asked_for_is_no_reason_to_refuse(scene, tmp_path, monkeypatch):
    image, model, mask = scene
    monkeypatch.setattr("fcntile.inference.memory.free_memory", lambda: 0.0)
    predict(image, tmp_path / "m.tif", model=model, workers=1, **GRID)
    assert (tmp_path / "m.tif").read_bytes() == mask


@settings(deadline=None)
@given(st.data())
def test_a_divided_run_has_every_pixel_once_and_every_row_of_tiles_in_one_stretch(data):
    unit = 16
    overlap, guard = data.draw(st.sampled_from([unit, 2 * unit])), data.draw(st.integers(0, 8))
    height, width = data.draw(st.integers(1, 2000)), data.draw(st.integers(1, 900))
    tiling = Tiling.over(height=height, width=width, tile=4 * unit, overlap=overlap, guard=guard)
    columns, rows = data.draw(st.integers(1, 900)), data.draw(st.integers(1, 400))
    windows = plan_parts(Window(0, 0, width, height), rows, columns)
    windows = data.draw(st.lists(st.sampled_from(windows), unique=True, min_size=1))
    windows.sort(key=lambda w: (w.col_off, w.row_off))
    count = data.draw(st.integers(1, 30))

    stretches, junctions = divide(windows, tiling, count)
    before, after = np.zeros((2, height, width), np.uint8)
    for window in windows:
        before[window.toslices()] += 1
    for window in chain(*stretches, junctions):
        assert window.height > 0 and window.width > 0
        after[window.toslices()] += 1
    assert np.array_equal(before, after)

    routes = list(walks(windows))
    assert len(stretches) >= len(routes)
    for route in routes:
        inside = [s for s in stretches if intersect([union(s), union(route)])]
        blocks = [tiling.block(union(stretch)) for stretch in inside]
        aside = [b for s, b in zip(inside, blocks, strict=True) if s[0].width < route[0].width]
        twice = len(aside[0].rows) * (len(aside) - 1) if aside and tiling.x.ramp else 0
        assert sum(b.count for b in blocks) == tiling.block(union(route)).count + twice
        if len(routes) == 1 and len(inside) == count and guard < unit:
            sizes = sorted(len(b.rows) for b in blocks)
            assert sizes[-1] - sizes[0] <= 3  # at a walk's ends there may be rows that no cut suits


def test_rows_that_are_left_over_are_cut_into_columns_if_that_is_sooner_done():
    for rows, columns, workers in product(range(1, 30), range(1, 30), range(1, 12)):
        low, aside = choose_cuts(rows, columns, workers)
        heights, widths = (np.diff([0, *cuts, n]) for cuts, n in ((low, rows), (aside, columns)))
        assert min(heights) > 0 and min(widths) > 0
        inferred = widths + (np.arange(len(widths)) > 0)  # beside a cut one tile twice
        takes = max(heights[:-1], default=0) * columns + heights[-1] * max(inferred)
        most = -(-rows // workers) * columns
        assert takes < most if aside else max(heights) * columns == most
        assert len(widths) <= workers and len(heights) <= workers + bool(aside)


@pytest.mark.parametrize("seed", range(20))
def test_every_part_is_given_once_whoever_comes_and_goes(seed):
    chance = random.Random(seed)
    windows = plan_parts(Window(0, 0, 900, 4000), 100, 300)
    stretches, given, crew = Stretches(list(walks(windows)), Axis(4000, 64, 16)), [], ["a", "b"]
    while stretches:
        if chance.random() < 0.1:
            crew = chance.sample("abcdef", chance.randint(1, 4))
            stretches.keep(crew)
        if route := stretches.take(chance.choice(crew)):
            given.append(route[0])
            below = [w for w in windows if w.col_off == route[0].col_off and w not in given]
            assert all(w in below for w in route[1:])
    assert sorted(given, key=windows.index) == windows


@pytest.mark.slow
def test_a_lost_scheduler_is_said_and_costs_no_finished_part(scene, tmp_path, small_parts):
    image, _, mask = scene
    file, out, options = (
        str(tmp_path / "s.json"),
        tmp_path / "mask.tif",
        {"model": scene[1], **GRID},
    )
    address_options = ["--host=127.0.0.1", "--port=0", "--no-dashboard", "--scheduler-file", file]
    with process("distributed.cli.dask_scheduler", *address_options) as lost, worker(file):
        wait_for_file(file)
        calls = iter(range(100))
        with pytest.raises(InputError, match=f"lost the scheduler at {address(file)}"):
            predict(
                image,
                out,
                **options,
                scheduler=address(file),
                progress=lambda done, total: lost.kill() if next(calls) == 3 else None,
            )
    made = predict(image, out, **options)
    assert 4 <= made.resumed_parts < 18
    assert out.read_bytes() == mask


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_workers_soon_and_keeps_what_is_finished(scene, tmp_path, number):
    image, out = tmp_path / "tall.tif", tmp_path / "mask.tif"
    with rasterio.open(scene[0]) as once:
        pixels, profile = np.tile(once.read(), (1, 6, 1)), once.profile
    with rasterio.open(image, "w", **profile | {"height": pixels.shape[1]}) as raster:
        raster.write(pixels)
    command = [*FCNTILE, "predict", image, "-o", out, "--workers", "2"]
    run = subprocess.Popen(
        [*command, "--tile", "512", "--overlap", "128"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not list(parts_folder(out).glob("*.tif")):
        assert run.poll() is None
        time.sleep(0.05)
    start = time.monotonic()
    os.killpg(run.pid, number) if number == signal.SIGINT else run.send_signal(number)
    said = run.communicate(timeout=30)[1]
    assert time.monotonic() - start < 10
    assert run.returncode == 128 + number and "Traceback" not in said
    assert said.strip().splitlines()[-1].startswith("Error: stopped: ")
    assert list(parts_folder(out).glob("*.tif")) and not out.exists()
