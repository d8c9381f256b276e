"""Sharded extraction: shard boundaries, and joined features bit-identical to those of a single call."""

import itertools
import json

import numpy as np
import pytest
from PIL import Image

from cion_jax.conversion import write_weights
from cion_jax.correlation import correlate_to, extend_to
from cion_jax.features.joining import join
from cion_jax.features.store import aligned_samples, extract, shard_file
from cion_jax.models import create_model
from cion_jax.runtime.files import write_json
from cion_jax.runtime.shards import WHOLE, Shard
from cion_jax.samples import SampleTable, read_samples, write_samples
from cion_jax.samples.stores.packed import pack
from tests.commands import run_command
from tests.correlation_oracle import make_world
from tests.networks import SIZE, Tiny

IMAGES, BATCH = 23, 4


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    """23 images; one each in the first, a middle and the last batch of four is broken."""
    folder = tmp_path_factory.mktemp("shards") / "crops"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for row in range(IMAGES):
        Image.fromarray(rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)).save(folder / f"{row:02d}.png")
    for row in (1, 11, 22):
        (folder / f"{row:02d}.png").write_bytes(b"broken")
    return folder, SampleTable.from_columns(file_path=[f"{row:02d}.png" for row in range(IMAGES)], frame=range(IMAGES))


def make(crops, out, shard=WHOLE, images=None, **settings):
    folder, table = crops
    settings = {"size": SIZE, "batch_size": BATCH, "about": {"model": "tiny"}} | settings
    return extract(Tiny(), table, images or folder, out, shard=shard, **settings)


def files(out):
    return [path.read_bytes() for path in (out, aligned_samples(out), out.with_suffix(".json"))]


@pytest.mark.parametrize("count", [2, 5, 6])
def test_joined_shards_equal_one_call(crops, tmp_path, count):
    make(crops, tmp_path / "one.npy")
    for index in reversed(range(count)):
        make(crops, tmp_path / "F.npy", Shard(index, count))
    report = join(tmp_path / "F.npy")
    assert report["rows"] == 20 and report["undecodable"] == 3
    one, joined = files(tmp_path / "one.npy"), files(tmp_path / "F.npy")
    assert joined[0] == one[0] and joined[2] == one[2]
    assert read_samples(tmp_path / "F.samples.parquet").arrow.equals(
        read_samples(tmp_path / "one.samples.parquet").arrow
    )


def test_features_joined_without_a_copy_are_correlated_as_if_they_were(tmp_path):
    features, videos, tracklets = make_world(2, images=90, videos=4, tracklets=5)
    table = SampleTable.from_columns(file_path=[f"{i}.jpg" for i in range(90)], video=videos, tracklet=tracklets)
    out, ends = tmp_path / "F.npy", [0, 31, 32, 90]
    for index, (first, last) in enumerate(itertools.pairwise(ends)):
        part = shard_file(out, Shard(index, 3))
        np.save(part, features[first:last])
        write_samples(table.select(np.arange(first, last)), aligned_samples(part))
        about = {"rows": last - first, "undecodable": 0, "undecodable_examples": [], "dtype": "float32", "dim": 8}
        write_json(part.with_suffix(".json"), about | {"shard": {"index": index, "count": 3, "paths_sha256": "0"}})
    assert join(out, copy=False)["parts"] == [shard_file(out, Shard(index, 3)).name for index in range(3)]
    assert not out.exists()
    parted = correlate_to(tmp_path / "parted", aligned_samples(out), out)
    join(out)
    copied = correlate_to(tmp_path / "copied", aligned_samples(out), out)
    for name in ("identities.parquet", "annotations.json", "index/groups.npy", "index/centroids.npy"):
        assert (tmp_path / "parted" / name).read_bytes() == (tmp_path / "copied" / name).read_bytes()
    assert [level["noise"] for level in parted["levels"]] == [level["noise"] for level in copied["levels"]]
    extend_to(tmp_path / "less", tmp_path / "parted", remove=["1"])
    assert len(read_samples(tmp_path / "less/identities.parquet")) == (videos != 1).sum()


def test_an_incomplete_part_is_reported(crops, tmp_path):
    out = tmp_path / "F.npy"
    with pytest.raises(ValueError, match=r"F\.npy: no part of it is there; write them with cion_jax\.extract --shard"):
        join(out)
    for index in (0, 3):
        make(crops, out, Shard(index, 4))
    shard_file(out, Shard(3, 4)).with_suffix(".json").unlink()  # as after a killed call
    with pytest.raises(ValueError, match=r"3 of 4 parts are missing or not complete: 1, 2, 3; .*--shard=i/4"):
        join(out)
    assert not out.exists()
    make(crops, out, Shard(0, 2))
    with pytest.raises(ValueError, match=r"parts of 2 and of 4; remove those of another run"):
        join(out)


@pytest.mark.parametrize("change", [{"dtype": "float32"}, {"about": {"model": "other"}}, {"mean": (0.0, 0.0, 0.0)}])
def test_parts_made_in_different_ways_are_refused(crops, tmp_path, change):
    make(crops, tmp_path / "F.npy", Shard(0, 2))
    make(crops, tmp_path / "F.npy", Shard(1, 2), **change)
    name = "model" if "about" in change else next(iter(change))
    with pytest.raises(ValueError, match=rf"shard-1-of-2\.npy was made in another way than .*: {name} differ"):
        join(tmp_path / "F.npy")


def test_parts_of_different_samples_are_refused(crops, tmp_path):
    folder, table = crops
    make(crops, tmp_path / "F.npy", Shard(0, 2))
    make((folder, table.select(np.arange(IMAGES)[::-1])), tmp_path / "F.npy", Shard(1, 2))
    with pytest.raises(ValueError, match="samples listed differ"):
        join(tmp_path / "F.npy")


def test_no_shard_may_be_empty(crops, tmp_path):
    with pytest.raises(ValueError, match="7 shards of 6 batches of 4: make at most 6"):
        make(crops, tmp_path / "F.npy", Shard(0, 7))


def test_a_packed_store_gives_the_features_of_its_folder(crops, tmp_path):
    folder, table = crops
    pack(table["file_path"], folder, tmp_path / "store", shard_images=10)
    make(crops, tmp_path / "F.npy")
    result = make(crops, tmp_path / "P.npy", images=tmp_path / "store")
    assert files(tmp_path / "P.npy")[:2] == files(tmp_path / "F.npy")[:2]
    assert sorted(result.undecodable) == [1, 11, 22] and "11.png in " in result.undecodable[11]
    report = json.loads((tmp_path / "P.json").read_text())
    assert report["undecodable"] == 3


@pytest.mark.slow
def test_the_commands(crops, tmp_path):
    folder, table = crops
    write_samples(table, tmp_path / "s.parquet")
    weights = tmp_path / "w.pth"
    write_weights(create_model("resnet_ibn_test"), weights)
    flags = [f"--samples={tmp_path}/s.parquet", f"--images={folder}", "--model=resnet_ibn_test", f"--weights={weights}"]
    flags += ["--height=64", "--width=32", "--batch_size=4"]
    for shard in ("0/2", "1/2"):
        done = run_command("cion_jax.extract", *flags, f"--out={tmp_path}/F.npy", f"--shard={shard}")
        assert done.returncode == 0 and f"shard-{shard[0]}-of-2.npy: 10 rows" in done.stdout, done.stderr
    done = run_command("cion_jax.join", f"--out={tmp_path}/F.npy")
    assert done.returncode == 0 and "20 rows" in done.stdout, done.stderr
    expected = [row for row in range(IMAGES) if row not in (1, 11, 22)]
    assert read_samples(aligned_samples(tmp_path / "F.npy"))["frame"].tolist() == expected


@pytest.mark.parametrize("items", [0, 1, 7, 16, 1000])
@pytest.mark.parametrize("count", [1, 3, 16])
def test_every_item_belongs_to_one_shard_and_shards_are_even(items, count):
    parts = [Shard(index, count).part(items) for index in range(count)]
    assert [item for part in parts for item in part] == list(range(items))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_shard_names():
    assert Shard.parse("3/16") == (3, 16) and str(Shard(3, 16)) == "3/16"
    for text in ("16/16", "-1/4", "1", "a/b", "1/0", "1/2/3", ""):
        with pytest.raises(ValueError, match=r"expected i/n with i from 0 to n - 1"):
            Shard.parse(text)
