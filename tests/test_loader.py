"""Batches do not depend on the number of threads and processes, even if some images cannot be decoded."""

import time
import tracemalloc

import numpy as np
import pytest

from cion_jax.distillation import loader
from cion_jax.distillation.sampler import IdentitySampler, identity_sizes
from cion_jax.distillation.schedules import make_curriculum
from cion_jax.samples import load_image
from tests.tiny import IDENTITIES, write_crops


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    """Folder and paths of crops; one image of identity 2 and all of identity 5 are corrupt."""
    folder = tmp_path_factory.mktemp("loader") / "crops"
    table = write_crops(folder)
    for row in (12, *np.flatnonzero(IDENTITIES == 5)):
        (folder / table["file_path"][row]).write_bytes(b"no picture")
    return folder, table["file_path"]


@pytest.fixture(scope="module")
def sampler():
    plan = make_curriculum(
        identity_sizes(IDENTITIES), batch_size=16, epochs=2, stage_epochs=(0,), images_per_identity=(2,)
    )
    return IdentitySampler(IDENTITIES, plan, batch_size=16, seed=0)


def load(sampler, crops, **options):
    folder, paths = crops
    return list(loader.load_batches(sampler, paths, folder, canvas=(40, 20), **options))


def equal(ours, theirs):
    np.testing.assert_array_equal(ours.images, theirs.images)
    np.testing.assert_array_equal(ours.sizes, theirs.sizes)
    np.testing.assert_array_equal(ours.rows, theirs.rows)
    assert ours.replaced == theirs.replaced


def test_threads_and_a_later_start_change_nothing(sampler, crops):
    batches = load(sampler, crops, threads=1)
    assert len(batches) == len(sampler) == 6
    for ours, theirs in zip(load(sampler, crops, threads=3), batches, strict=True):
        equal(ours, theirs)
    for ours, theirs in zip(load(sampler, crops, threads=2, first_step=4), batches[4:], strict=True):
        equal(ours, theirs)


@pytest.mark.parametrize("processes", [2, 4, 8])
def test_the_parts_of_processes_are_the_whole_batch(sampler, crops, processes, monkeypatch):
    whole = load(sampler, crops, threads=1)
    parts = []
    monkeypatch.setattr(loader.jax, "process_count", lambda: processes)
    for index in range(processes):
        monkeypatch.setattr(loader.jax, "process_index", lambda index=index: index)
        parts.append(load(sampler, crops, threads=1))
    for step, batch in enumerate(whole):
        together = loader.Batch(
            np.concatenate([part[step].images for part in parts]),
            np.concatenate([part[step].sizes for part in parts]),
            np.concatenate([part[step].rows for part in parts]),
            sum(part[step].replaced for part in parts),
        )
        equal(together, batch)


def test_damaged_jpegs_are_replaced_if_asked_for(sampler, crops, tmp_path, monkeypatch):
    folder, paths = tmp_path / "crops", crops[1]
    write_crops(folder)
    data = bytearray((folder / paths[0]).read_bytes())
    scan = data.index(b"\xff\xda") + 14
    data[scan + 50 : scan + 250] = bytes(200)
    (folder / paths[0]).write_bytes(data)
    for skip_damaged, replaced in ((False, 0), (True, 2)):  # it comes once in each of two epochs
        batches = load(sampler, (folder, paths), threads=1, skip_damaged=skip_damaged)
        assert sum(batch.replaced for batch in batches) == replaced
        assert any(0 in batch.rows for batch in batches) != skip_damaged
    monkeypatch.setattr(loader, "FINDS_DAMAGE", False)
    with pytest.raises(ValueError, match=r"skip_damaged needs .* pip install simplejpeg"):
        load(sampler, (folder, paths), skip_damaged=True)


def test_broken_images_are_replaced_within_their_identity_and_counted(sampler, crops):
    folder, paths = crops
    pictures = {row: load_image(folder / paths[row]) for row in range(48) if row != 12 and IDENTITIES[row] != 5}
    batches = load(sampler, crops, threads=1)
    assert sum(batch.replaced for batch in batches) == 2 * 7  # each of the seven once in each of two epochs
    for step, batch in enumerate(batches):
        for group, images in zip(sampler[step], batch.images.reshape(8, 2, 40, 20, 3), strict=True):
            whole = [row for row in group if row in pictures]
            own = [pictures[row] for row in whole] or list(pictures.values())
            for image in images:
                assert any(np.array_equal(image, picture) for picture in own)
        for row, image in zip(batch.rows, batch.images, strict=True):
            np.testing.assert_array_equal(image, pictures[row])


@pytest.mark.slow
def test_an_epoch_of_the_whole_crawl_is_drawn_in_seconds():
    """A data set of CION-AL's size: 3.9 M images of 247 k identities."""
    random = np.random.default_rng(0)
    identities = np.sort(np.concatenate([np.arange(247_000), random.integers(0, 247_000, 3_898_086 - 247_000)]))
    tracemalloc.start()
    started = time.process_time()
    plan = make_curriculum(
        identity_sizes(identities), batch_size=960, epochs=2, stage_epochs=(0, 1), images_per_identity=(2, 8)
    )
    sampler = IdentitySampler(identities, plan, batch_size=960, seed=0)
    first = sampler[0]
    seconds, (_, most_bytes) = time.process_time() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert first.shape == (480, 2) and (identities[first[:, 0]] == identities[first[:, 1]]).all()
    assert seconds < 5
    assert most_bytes < 1e9
