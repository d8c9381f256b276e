"""Listing of plain image folders: files, order and errors."""

import errno
import os

import pytest

from cion_jax.samples import open_images, read_samples
from cion_jax.samples.stores.packed import pack


def make(root, *paths: str):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")
    return root


def listed(root) -> list[str]:
    return read_samples(root)["file_path"].tolist()


def test_every_image_at_any_depth_in_order_of_its_path(tmp_path):
    make(tmp_path, "b/1.jpg", "b.png", "a/z/2.JPEG", "a/10.webp", "a/9.Png", "B/0.heic", "b/é ü.tiff", "b-/1.jpg")
    make(tmp_path, "notes.txt", "a/labels.csv", "jpg", "a/x.jpg.part", "F.npy")
    # Sorted by the whole path, not folder by folder: "-" and "." come before "/", capitals before small letters.
    assert listed(tmp_path) == [
        *("B/0.heic", "a/10.webp", "a/9.Png", "a/z/2.JPEG", "b-/1.jpg", "b.png", "b/1.jpg", "b/é ü.tiff"),
    ]
    assert read_samples(tmp_path).columns == ("file_path",)


def test_files_that_are_no_images_are_counted_and_named(tmp_path, capsys):
    assert listed(make(tmp_path, "a/1.jpg", "Thumbs.db", "a/._1.jpg", *(f"b/{number}.JPG.part" for number in range(6))))
    said = capsys.readouterr().err
    assert "7 files (Thumbs.db, b/0.JPG.part, b/1.JPG.part, b/2.JPG.part, b/3.JPG.part, ...)" in said
    assert listed(make(tmp_path / "only", "1.jpg")) and not capsys.readouterr().err


def test_any_spelling_of_the_folder_is_accepted(tmp_path, monkeypatch):
    make(tmp_path, "crops.jpg/a/1.jpg", "here/x")  # the extension of a folder is ignored
    os.symlink(tmp_path / "crops.jpg", tmp_path / "link")
    monkeypatch.chdir(tmp_path / "here")
    for given in ("../crops.jpg", str(tmp_path / "crops.jpg") + "/", tmp_path / "link", "../here/../link//"):
        assert listed(given) == ["a/1.jpg"], given


def test_hidden_files_are_left_out(tmp_path):
    make(tmp_path, "1.jpg", "._1.jpg", ".thumbnails/1.jpg", "a/.2.jpg.tmp.jpg")
    assert listed(tmp_path) == ["1.jpg"]


def test_links_are_followed_and_cycles_end(tmp_path):
    make(tmp_path, "elsewhere/deep/1.jpg", "root/2.jpg", "root/a/3.jpg")
    os.symlink(tmp_path / "elsewhere", tmp_path / "root" / "linked")
    os.symlink(tmp_path / "elsewhere/deep/1.jpg", tmp_path / "root" / "file.jpg")
    os.symlink(tmp_path / "root", tmp_path / "root" / "a" / "round")
    os.symlink(tmp_path / "root" / "a", tmp_path / "elsewhere" / "back")
    assert listed(tmp_path / "root") == ["2.jpg", "a/3.jpg", "file.jpg", "linked/deep/1.jpg"]


def test_folders_without_images_are_refused(tmp_path):
    (tmp_path / "empty" / "deeper").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"empty: no image in this folder or below it \(.*\.jpg.*but no files at all"):
        read_samples(tmp_path / "empty")
    make(tmp_path, "other/b.txt", "other/a.mp4")
    with pytest.raises(ValueError, match=r"other: no image .*, but 2 other files, such as 'a\.mp4'"):
        read_samples(tmp_path / "other")
    with pytest.raises(ValueError, match="nowhere: no such folder"):
        open_images(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"b\.txt: a file, expected a folder of images"):
        open_images(tmp_path / "other" / "b.txt")


def test_a_packed_store_cannot_be_listed(tmp_path):
    make(tmp_path, "images/1.jpg")
    pack(["1.jpg"], tmp_path / "images", tmp_path / "store")
    with pytest.raises(ValueError, match=r"store: a packed store, .* not keep file names; give the sample table"):
        read_samples(tmp_path / "store")


def test_names_that_are_not_utf8_are_refused(tmp_path):
    make(tmp_path, "good.jpg")
    try:
        (tmp_path / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    with pytest.raises(ValueError, match=r"the file name 'caf\\udce9\.jpg' is not UTF-8; rename"):
        read_samples(tmp_path)


def test_an_unreadable_folder_is_an_error(tmp_path, monkeypatch):
    make(tmp_path, "1.jpg", "closed/2.jpg")
    scandir = os.scandir

    def refusing(folder):  # permissions do not stop root, as which tests may run
        if os.path.basename(folder) == "closed":
            raise PermissionError(errno.EACCES, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(ValueError, match=r"cannot be read.*Permission denied.*closed"):
        read_samples(tmp_path)
