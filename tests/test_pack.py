"""Packed stores: contents equal the packed files, also after interruptions; training reads them like folders."""

import contextlib
import os
import resource
import shutil
import subprocess
import sys

import numpy as np
import pytest

from cion_jax.distillation.loader import load_batches
from cion_jax.distillation.sampler import IdentitySampler, identity_sizes
from cion_jax.distillation.schedules import make_curriculum
from cion_jax.samples import (
    SampleTable,
    UndecodableImage,
    check_images,
    load_image,
    open_images,
    write_samples,
)
from cion_jax.samples.stores import packed
from cion_jax.samples.stores.packed import damaged_shards, is_packed, pack
from tests.tiny import IDENTITIES, write_crops


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pack") / "crops"
    return folder, write_crops(folder)


@pytest.fixture
def store(crops, tmp_path):
    """48 images in shards of 10."""
    folder, table = crops
    pack(table["file_path"], folder, tmp_path / "store", shard_images=10)
    return tmp_path / "store"


def test_every_image_equals_its_file(crops, store):
    folder, table = crops
    images = open_images(store)
    for path in table["file_path"]:
        np.testing.assert_array_equal(images.load(path), load_image(folder / path))
    assert len(list(store.glob("*.array_record"))) == 5
    assert damaged_shards(store) == []
    with pytest.raises(UndecodableImage, match=r"nobody\.jpg: not in"):
        images.load("nobody.jpg")
    check_images(table, store)
    with pytest.raises(ValueError, match=r"48 of 48 images are not under"):
        check_images(table.with_columns(file_path=[f"x{path}" for path in table["file_path"]]), store)


def test_training_reads_a_store_as_it_reads_a_folder(crops, store):
    folder, table = crops
    plan = make_curriculum(
        identity_sizes(IDENTITIES), batch_size=16, epochs=1, stage_epochs=(0,), images_per_identity=(2,)
    )
    sampler = IdentitySampler(IDENTITIES, plan, batch_size=16, seed=0)
    sources = [list(load_batches(sampler, table["file_path"], root, canvas=(40, 20))) for root in (folder, store)]
    for ours, theirs in zip(*sources, strict=True):
        np.testing.assert_array_equal(ours.images, theirs.images)


def test_an_interrupted_pack_resumes(crops, tmp_path):
    folder, table = crops
    copy, out = tmp_path / "copy", tmp_path / "store"
    copy.mkdir()
    for path in table["file_path"][:30]:
        (copy / path).write_bytes((folder / path).read_bytes())
    with pytest.raises(FileNotFoundError):
        pack(table["file_path"], copy, out, shard_images=10)
    done = {path: path.stat().st_mtime_ns for path in out.glob("*.sha256")}
    assert len(done) == 3 and not is_packed(out)
    with pytest.raises(ValueError, match="give another --out"):
        pack(table["file_path"][:47], folder, out, shard_images=10)
    pack(table["file_path"], folder, out, shard_images=10)
    assert is_packed(out) and all(path.stat().st_mtime_ns == before for path, before in done.items())
    assert not list(out.glob(".*"))
    np.testing.assert_array_equal(open_images(out).load("47.jpg"), load_image(folder / "47.jpg"))


@pytest.mark.parametrize("harm", ["changed", "cut off"])
def test_a_damaged_shard_is_found(store, harm):
    shard = store / "shard-00002.array_record"
    data = bytearray(shard.read_bytes())
    if harm == "changed":
        data[len(data) // 2] ^= 0xFF
    shard.write_bytes(data if harm == "changed" else data[: len(data) // 2])
    assert damaged_shards(store) == [shard]


@contextlib.contextmanager
def few_more_open_files(count):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_more_shards_than_files_may_be_open(crops, tmp_path, monkeypatch):
    folder, table = crops
    pack(table["file_path"], folder, tmp_path / "store", shard_images=1)
    with few_more_open_files(16):
        monkeypatch.setattr(packed, "_OPEN_SHARDS", 4)
        images = open_images(tmp_path / "store")
        for path in table["file_path"]:
            assert images.read(path) == (folder / path).read_bytes()
        monkeypatch.setattr(packed, "_OPEN_SHARDS", 1000)
        with pytest.raises(OSError, match="Too many open files"):  # not reported as damaged images
            for path in table["file_path"]:
                images.read(path)


@pytest.mark.slow
def test_the_command(crops, tmp_path):
    folder, _ = crops
    command = [sys.executable, "-m", "cion_jax.pack", f"--samples={folder.parent / 'crops.parquet'}"]
    command += [f"--images={folder}", f"--out={tmp_path / 'store'}", "--verify"]
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert "is complete and as it was packed" in done.stdout
    write_samples(SampleTable.from_columns(file_path=["00.jpg", "nobody.jpg"]), tmp_path / "more.parquet")
    command[3:] = [f"--samples={tmp_path / 'more.parquet'}", f"--images={folder}", f"--out={tmp_path / 'other'}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "nobody.jpg" in done.stderr and not (tmp_path / "other").exists()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 12345\n"


@pytest.mark.parametrize("file", ["pack.json", "keys.npy"])
def test_a_store_of_pointers_is_named(store, tmp_path, file):
    shutil.copytree(store, tmp_path / "copy")
    (tmp_path / "copy" / file).write_bytes(POINTER)
    with pytest.raises(ValueError, match=rf"{file}: the file is a git-lfs pointer, .*run `git lfs pull`"):
        open_images(tmp_path / "copy")


def test_a_shard_that_is_a_pointer_is_named(crops, store, tmp_path):
    shutil.copytree(store, tmp_path / "copy")
    (tmp_path / "copy/shard-00000.array_record").write_bytes(POINTER)
    with pytest.raises(UndecodableImage, match=r"shard-00000.* is damaged \(the file is a git-lfs pointer"):
        open_images(tmp_path / "copy").load(crops[1]["file_path"][0])


def test_other_files_in_place_of_a_store_are_named(store, tmp_path):
    (tmp_path / "store.tar").write_bytes(bytes(257) + b"ustar")
    with pytest.raises(ValueError, match=r"store\.tar: a file, expected a folder of images; the file is a tar archive"):
        open_images(tmp_path / "store.tar")
    shutil.copytree(store, tmp_path / "copy")
    (tmp_path / "copy/pack.json").write_text("{}")
    with pytest.raises(ValueError, match=r"pack\.json: expected the numbers images and shard_images, got {}"):
        open_images(tmp_path / "copy")
