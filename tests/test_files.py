"""Atomic file writes, and the distinction between system errors and broken images."""

import errno
from pathlib import Path

import pytest

from cion_jax.runtime.files import atomic_path
from cion_jax.samples.formats import read_samples
from cion_jax.samples.images import UndecodableImage, read_file


def test_leftovers_are_matched_by_their_literal_name(tmp_path):
    mine, others = tmp_path / ".a[1].npy.0123abcd.tmp", tmp_path / ".a1.npy.0123abcd.tmp"
    longer = tmp_path / ".a[1].npy.more.0123abcd.tmp"
    for path in (mine, others, longer):
        path.touch()
    with atomic_path(tmp_path / "a[1].npy") as temporary:
        temporary.touch()
    assert not mine.exists() and others.exists() and longer.exists()


@pytest.mark.parametrize("length", [128, 129, 255])
def test_any_name_that_fits_can_be_written(tmp_path, length):
    path = tmp_path / ("x" * length)
    for content in (b"1", b"2"):
        with pytest.raises(ZeroDivisionError), atomic_path(path) as temporary:
            temporary.write_bytes(b"half")
            raise ZeroDivisionError
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
        assert path.read_bytes() == content and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("code", "kind"), [(errno.ENOENT, UndecodableImage), (errno.EMFILE, OSError), (errno.ENOMEM, OSError)]
)
def test_system_errors_are_not_reported_as_broken_images(code, kind, monkeypatch):
    def read_bytes(path):
        raise OSError(code, "made up", str(path))

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    with pytest.raises(kind) as caught:
        read_file("a.jpg")
    assert isinstance(caught.value, UndecodableImage) == (kind is UndecodableImage)


def test_other_keys_of_annotations_are_ignored(tmp_path):
    path = tmp_path / "annotations.json"
    first = '{"id": 3, "file_path": "a.jpg", "captions": [{"file_path": "x"}]}'
    path.write_text(f'[{first}, {{"file_path": "b.jpg", "id": 4}}]')
    table = read_samples(path)
    assert table["file_path"].tolist() == ["a.jpg", "b.jpg"] and table["identity"].tolist() == [3, 4]
