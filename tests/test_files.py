from pathlib import Path

import pytest

from fcntile.errors import OutputError
from fcntile.files import cannot_write, check_apart, check_output, same_file, whole_file


def test_outputs_that_cannot_be_written_are_refused_before_any_work(tmp_path):
    with pytest.raises(OutputError, match="is a directory"):
        check_output(tmp_path, overwrite=True)
    with pytest.raises(OutputError, match="does not exist"):
        check_output(tmp_path / "no" / "mask.tif", overwrite=False)
    for nameless in (Path(), Path("/")):
        with pytest.raises(OutputError, match="is no name for a file"):
            check_output(nameless, overwrite=True)
    with pytest.raises(OutputError, match="File name too long"):  # with what is beside it
        check_output(tmp_path / ("m" * 250), overwrite=True)
    (tmp_path / "mask.tif").touch()
    with pytest.raises(OutputError, match="--overwrite"):
        check_output(tmp_path / "mask.tif", overwrite=False)
    check_output(tmp_path / "mask.tif", overwrite=True)


def test_a_file_is_the_same_by_any_of_its_names(tmp_path, monkeypatch):
    (tmp_path / "a.tif").touch()
    (tmp_path / "link.tif").symlink_to("a.tif")
    monkeypatch.chdir(tmp_path)
    for name in ("a.tif", "./a.tif", "link.tif", Path("a.tif"), f"../{tmp_path.name}/a.tif"):
        assert same_file(name) == str((tmp_path / "a.tif").resolve())
        with pytest.raises(OutputError, match=r"a\.tif is the model: choose another"):
            check_apart(tmp_path / "a.tif", {"the input": ["https://x/a.tif"], "the model": [name]})
    assert same_file("https://x/../a.tif") == "https://x/../a.tif"


def test_a_file_appears_only_when_it_is_whole(tmp_path):
    path = tmp_path / "table.csv"
    with whole_file(path) as written:
        written.write_text("half of")
        assert not path.exists()
        written.write_text("all of it")
    assert path.read_text() == "all of it"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("failure", [OSError("no space"), ValueError("not of the disk")])
def test_a_file_that_fails_leaves_the_one_before_it(tmp_path, failure):
    path = tmp_path / "table.csv"
    path.write_text("of yesterday")
    expected = OutputError if isinstance(failure, OSError) else ValueError
    with pytest.raises(expected, match=str(failure)), whole_file(path) as written:
        written.write_text("half of")
        raise failure
    assert path.read_text() == "of yesterday"
    assert list(tmp_path.iterdir()) == [path]


def test_who_cannot_write_names_the_file_once(tmp_path):
    error = cannot_write(tmp_path / "a", OSError("no space"))
    assert str(error) == f"cannot write {tmp_path / 'a'} (is the disk full?): no space"
    assert cannot_write(tmp_path / "b", error) is error
