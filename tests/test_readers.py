"""Readers of published layouts, on small valid and malformed data sets."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from absl import flags

from cion_jax import evaluation
from cion_jax.samples import check_images, load_image, read, read_samples
from cion_jax.samples.layouts import MARKET1501_ROOTS, MSMT17_ROOTS
from cion_jax.samples.readers import READERS, read_dataset
from cion_jax.samples.stores.folder import EXTENSIONS
from tests.image_folders import make, rows

# --- CION-AL and SYNTH-PEDES


def test_cion_al_annotations_are_read(tmp_path):
    make(tmp_path, "sec0/a.jpg", "sec129/b.jpg")
    annotations = [{"id": 7, "file_path": "sec0/a.jpg"}, {"id": 246903, "file_path": "sec129/b.jpg"}]
    (tmp_path / "cional_annos.json").write_text(json.dumps(annotations))
    assert rows(read_dataset("cional", tmp_path)) == [
        {"file_path": "sec0/a.jpg", "identity": 7},
        {"file_path": "sec129/b.jpg", "identity": 246903},
    ]


def test_synthpedes_beside_its_images(tmp_path):
    make(tmp_path / "SYNTH-PEDES", "Part1/7/1.jpg", "Part11/9/3.jpg")
    about = {"attributes": ["man,black,long,blue,short,none"], "captions": ["A man."], "prompt_caption": ["A man."]}
    people = [{"id": 7, "file_path": "Part1/7/1.jpg"} | about, {"id": 9, "file_path": "Part11/9/3.jpg"} | about]
    (tmp_path / "synthpedes_dataset.json").write_text(json.dumps(people))
    assert rows(read_dataset("synthpedes", tmp_path / "SYNTH-PEDES")) == [
        {"file_path": "Part1/7/1.jpg", "identity": 7},
        {"file_path": "Part11/9/3.jpg", "identity": 9},
    ]


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        (None, r"no cional_annos\.json in this folder or beside it"),
        ('[{"id": 1, "file_path": "a.jpg"}', r"cional_annos\.json: not a JSON file .*truncated"),
        ('[{"file_path": "a.jpg"}]', "have no key 'id'"),
        ('[{"id": "1", "file_path": "a.jpg"}]', r"cional_annos\.json: column 'identity' holds string"),
        ('[{"id": 1, "file_path": "gone.jpg"}]', r"1 of 1 images are not under .*row 0: 'gone\.jpg'"),
        ('[{"id": 1, "file_path": "a.jpg"}, {"id": 2, "file_path": "./a.jpg"}]', "file_path appears more than once"),
        ('[{"id": 1, "file_path": "../a.jpg"}]', r"file_path has a '\.\.'"),
    ],
)
def test_bad_annotations(tmp_path, annotations, message):
    root = make(tmp_path / "data", "a.jpg")
    if annotations is not None:
        (root / "cional_annos.json").write_text(annotations)
    with pytest.raises(ValueError, match=message):
        read_dataset("cional", root)


# --- Market-1501


@pytest.mark.parametrize("place", ["", "market1501", "Market-1501-v15.09.15"])
def test_market1501_is_read(tmp_path, place, capsys):
    names = ["0002_c1s1_000451_03.jpg", "0007_c6s3_077467_05.jpg", "-1_c3s2_000001_00.jpg"]
    make(tmp_path / place / "bounding_box_train", *names)
    make(tmp_path / place / "query", "0003_c1s1_000451_03.jpg")
    (tmp_path / place / "bounding_box_train" / "Thumbs.db").write_bytes(b"not an image")
    (tmp_path / place / "bounding_box_train" / f"._{names[0]}").write_bytes(b"macOS metadata")
    reading = read_dataset("market1501", tmp_path)
    folder = f"{place}/bounding_box_train".lstrip("/")
    assert rows(reading) == [
        {"file_path": f"{folder}/0002_c1s1_000451_03.jpg", "identity": 2, "person": 2, "camera": 1},
        {"file_path": f"{folder}/0007_c6s3_077467_05.jpg", "identity": 7, "person": 7, "camera": 6},
    ]
    assert reading.left_out == {"junk images (identity -1)": 1}
    assert "1 files (Thumbs.db)" in capsys.readouterr().err
    check_images(reading.samples, tmp_path)


def test_bad_market1501(tmp_path):
    with pytest.raises(ValueError, match=r"no bounding_box_train here or in market1501, Market-1501-v15\.09\.15"):
        read_dataset("market1501", tmp_path)
    (tmp_path / "bounding_box_train").mkdir()
    with pytest.raises(ValueError, match=r"bounding_box_train: no images of a person \("):
        read_dataset("market1501", tmp_path)
    make(tmp_path, *(f"bounding_box_train/{name}.jpg" for name in ("0002_c1s1_000451_03", "other", "c1_0002")))
    with pytest.raises(
        ValueError, match=r"2 of 3 file names do not begin with <identity>_c<camera>: 'c1_0002\.jpg', 'other\.jpg'"
    ):
        read_dataset("market1501", tmp_path)


# --- MSMT17


def write_msmt17(root, images, **lists):
    for name, lines in lists.items():
        make(root / images, *(line.split()[0] for line in lines))
        (root / f"list_{name}.txt").write_text("\n".join(lines) + "\n")


TRAIN = ["0000/0000_000_01_0303morning_0008_0.jpg 0", "0001/0001_002_15_0303noon_0008_0.jpg 1"]
VAL = ["0000/0000_013_05_0303morning_0011_1.jpg 0"]


@pytest.mark.parametrize(
    ("place", "images"),
    [("MSMT17_V1", "train"), ("MSMT17_V2", "mask_train_v2"), ("MSMT17", "train"), ("", "train"), ("msmt17", "train")],
)
def test_msmt17_by_its_lists(tmp_path, place, images):
    write_msmt17(tmp_path / place, images, train=TRAIN, val=VAL)
    prefix = f"{place}/{images}".lstrip("/")
    train = [
        {"file_path": f"{prefix}/{TRAIN[0].split()[0]}", "identity": 0, "person": 0, "camera": 1},
        {"file_path": f"{prefix}/{TRAIN[1].split()[0]}", "identity": 1, "person": 1, "camera": 15},
    ]
    val = [{"file_path": f"{prefix}/{VAL[0].split()[0]}", "identity": 0, "person": 0, "camera": 5}]
    assert rows(read_dataset("msmt17", tmp_path, split="train")) == train
    assert rows(read_dataset("msmt17", tmp_path, split="train+val")) == train + val


def test_msmt17_named_as_market1501(tmp_path):
    make(tmp_path / "MSMT17_V1" / "bounding_box_train", "0000_c12_0033.jpg", "0001_c1_0002.jpg")
    (tmp_path / "MSMT17_V1" / "bounding_box_train" / "._0000_c12_0033.jpg").write_bytes(b"macOS metadata")
    assert rows(read_dataset("msmt17", tmp_path, split="train+val")) == [
        {"file_path": "MSMT17_V1/bounding_box_train/0000_c12_0033.jpg", "identity": 0, "person": 0, "camera": 12},
        {"file_path": "MSMT17_V1/bounding_box_train/0001_c1_0002.jpg", "identity": 1, "person": 1, "camera": 1},
    ]
    with pytest.raises(ValueError, match=r"train and val without telling them apart; give --split=train\+val"):
        read_dataset("msmt17", tmp_path, split="train")


def test_bad_msmt17(tmp_path):
    with pytest.raises(ValueError, match="msmt17 needs --split"):
        read_dataset("msmt17", tmp_path)
    with pytest.raises(ValueError, match=r"--split='test': expected one of train, train\+val"):
        read_dataset("msmt17", tmp_path, split="test")
    with pytest.raises(ValueError, match=r"no bounding_box_train or list_train\.txt here or in MSMT17_V1, MSMT17_V2"):
        read_dataset("msmt17", tmp_path, split="train")
    root = tmp_path / "MSMT17_V1"
    write_msmt17(root, "train", train=TRAIN)
    with pytest.raises(ValueError, match=r"list_val\.txt: no such list; it comes in the archive"):
        read_dataset("msmt17", tmp_path, split="train+val")
    (root / "mask_train_v2").mkdir()
    with pytest.raises(ValueError, match="one of the image folders train, mask_train_v2 beside the lists, found 2"):
        read_dataset("msmt17", tmp_path, split="train")
    (root / "mask_train_v2").rmdir()
    (root / "train" / TRAIN[1].split()[0]).unlink()
    with pytest.raises(ValueError, match=r"1 of 2 images are not under .*row 1: 'MSMT17_V1/train/0001/0001_002_15"):
        read_dataset("msmt17", tmp_path, split="train")
    write_msmt17(root, "train", train=[*TRAIN, TRAIN[0]])
    with pytest.raises(ValueError, match=r"list_train\.txt, line 3: .* is listed a second time"):
        read_dataset("msmt17", tmp_path, split="train")
    write_msmt17(root, "train", train=TRAIN, val=TRAIN[:1])
    with pytest.raises(ValueError, match=r"list_val\.txt\): file_path appears more than once in 2 of 3 rows"):
        read_dataset("msmt17", tmp_path, split="train+val")
    write_msmt17(root, "train", train=TRAIN)
    (root / "list_train.txt").write_text(f"{TRAIN[0]}\n0001/0001_002_15_0303noon\n")
    with pytest.raises(ValueError, match=r"list_train\.txt, line 2: '0001/0001_.*' is not a path and an identity"):
        read_dataset("msmt17", tmp_path, split="train")
    write_msmt17(root, "train", train=["0000/0000.jpg 0"])
    with pytest.raises(ValueError, match=r"line 1: .*camera as third number of the file name"):
        read_dataset("msmt17", tmp_path, split="train")
    write_msmt17(tmp_path / "MSMT17_V2", "mask_train_v2", train=TRAIN)
    with pytest.raises(ValueError, match=r"holds 2 versions: .*MSMT17_V1, .*MSMT17_V2; give one"):
        read_dataset("msmt17", tmp_path, split="train")


# --- training tables and benchmarks share one reader


@pytest.mark.parametrize("place", MARKET1501_ROOTS)
def test_a_market1501_folder_gives_the_same_images_to_table_and_benchmark(tmp_path, place):
    names = ["-1_c1_0.jpg", "0000_c3_1.tif", "0002_c1_2.bmp", "0002_c2_3.WEBP", "0003_c12_4.jpg", "0003_c2_5.png"]
    make(tmp_path / place / "bounding_box_train", *names)
    (tmp_path / place / "bounding_box_train" / "notes.txt").touch()
    for folder in ("query", "bounding_box_test"):
        shutil.copytree(tmp_path / place / "bounding_box_train", tmp_path / place / folder)
    table = read_dataset("market1501", tmp_path).samples
    query, gallery, _ = evaluation.read_market1501(tmp_path)
    assert [Path(path).name for path in table["file_path"]] == names[1:]
    for images in (query, gallery):
        assert_same_images(images, table)
    for path in gallery.paths:
        load_image(path)


@pytest.mark.parametrize("place", MSMT17_ROOTS)
def test_msmt17_gives_the_same_images_to_table_and_benchmark(tmp_path, place):
    write_msmt17(tmp_path / place, "train", train=TRAIN)
    write_msmt17(tmp_path / place, "test", query=TRAIN, gallery=TRAIN)
    table = read_dataset("msmt17", tmp_path, split="train").samples
    for images in evaluation.read_msmt17(tmp_path)[:2]:
        assert_same_images(images, table)


def assert_same_images(images, table):
    assert [Path(path).name for path in images.paths] == [Path(path).name for path in table["file_path"]]
    np.testing.assert_array_equal(images.ids, table["identity"])
    np.testing.assert_array_equal(images.cameras, table["camera"])


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_a_gallery_is_complete_whatever_its_image_format(tmp_path, extension):
    for folder in ("query", "bounding_box_test"):
        make(tmp_path / folder, "0001_c1_0001.jpg")
    (tmp_path / "bounding_box_test" / f"0002_c3_0002{extension}").touch()
    (tmp_path / "bounding_box_test" / f"0003_c4_0003{extension.upper()}").touch()
    assert evaluation.read_market1501(tmp_path).gallery.ids.tolist() == [1, 2, 3]


@pytest.mark.parametrize("name", ["1" * 19 + "_c1_0.jpg", f"1_c{'1' * 19}_0.jpg"])
def test_labels_beyond_int64_are_refused(tmp_path, name):
    make(tmp_path / "bounding_box_train", name)
    with pytest.raises(ValueError, match="1 of 1 file names do not begin with"):
        read_dataset("market1501", tmp_path)


# --- a folder of tracklets


def test_tracklets_are_read(tmp_path):
    make(tmp_path, "a/1/x.jpg", "a/2/y.png", "b/1/z.jpg", "town/c/9/w.JPG")
    assert rows(read_dataset("tracklets", tmp_path)) == [
        {"file_path": "a/1/x.jpg", "video": "a", "tracklet": "1"},
        {"file_path": "a/2/y.png", "video": "a", "tracklet": "2"},
        {"file_path": "b/1/z.jpg", "video": "b", "tracklet": "1"},
        {"file_path": "town/c/9/w.JPG", "video": "town/c", "tracklet": "9"},
    ]


def test_frames_of_tracklets(tmp_path):
    make(tmp_path, "a/1/p7_f0012.jpg", "a/1/p7_f0003.jpg")
    table = read_dataset("tracklets", tmp_path, frame=r"f(\d+)").samples
    assert dict(zip(table["file_path"], table["frame"])) == {"a/1/p7_f0012.jpg": 12, "a/1/p7_f0003.jpg": 3}
    with pytest.raises(ValueError, match=r"2 of 2 names are not with 'g\(.*'a/1/p7_f0003\.jpg'"):
        read_dataset("tracklets", tmp_path, frame=r"g(\d+)")
    for bad in ("f[0-9]+", r"(f)(\d+)", "(", r"f(\d"):
        with pytest.raises(ValueError, match="--frame="):
            read_dataset("tracklets", tmp_path, frame=bad)


@pytest.mark.parametrize(("first", "second"), [("a/1/f1.jpg", "a/1/f001.jpg"), ("a/1/f1.jpg", "a/1/f1.png")])
def test_two_images_of_one_frame_of_a_tracklet_are_refused(tmp_path, first, second):
    make(tmp_path, first, second, "a/2/f1.jpg", "b/1/f1.jpg")
    with pytest.raises(
        ValueError, match=r"1 images are in the same frame .*: a/1/f.* and a/1/f.* are frame 1; .* --frame"
    ):
        read_dataset("tracklets", tmp_path, frame=r"f(\d+)")
    assert len(read_dataset("tracklets", tmp_path).samples) == 4


def test_images_outside_of_tracklets_are_reported(tmp_path):
    make(tmp_path, "a/1/x.jpg", "a/y.jpg", "z.jpg")
    with pytest.raises(ValueError, match=r"2 of 3 names are not video/tracklet/image: 'a/y\.jpg', 'z\.jpg'"):
        read_dataset("tracklets", tmp_path)


# --- the registry


def test_the_registry_checks_the_options_of_a_layout(tmp_path):
    with pytest.raises(ValueError, match="unknown layout 'duke', expected one of cional, lupersonnl, market1501, mot"):
        read_dataset("duke", tmp_path)
    with pytest.raises(ValueError, match="cional takes no --split"):
        read_dataset("cional", tmp_path, split="train")
    with pytest.raises(ValueError, match="mot needs --tracks, --crops"):
        read_dataset("mot", tmp_path)
    for layout in READERS:
        with pytest.raises(ValueError, match=r"gone: no such folder|needs --"):
            read_dataset(layout, tmp_path / "gone")


def test_an_output_that_is_not_parquet_is_refused_before_reading(tmp_path, monkeypatch):
    given = {"layout": "mot", "root": str(tmp_path), "out": "table.csv", "crops": str(tmp_path / "crops")}
    values = flags.FlagValues()
    for name in ("layout", "root", "out", "crops", "frame", "split", "tracks"):
        flags.DEFINE_string(name, given.get(name), "", flag_values=values)
    values.mark_as_parsed()
    monkeypatch.setattr(flags, "FLAGS", values)
    monkeypatch.setattr(read, "read_dataset", lambda *_, **__: pytest.fail("the data set was read"))
    with pytest.raises(ValueError, match=r"--out=table\.csv: .* give a name that ends in \.parquet"):
        read.main([])


@pytest.mark.slow
def test_the_command(tmp_path):
    make(tmp_path, "bounding_box_train/0002_c1s1_000451_03.jpg", "bounding_box_train/-1_c1s1_000451_03.jpg")
    command = [sys.executable, "-m", "cion_jax.samples.read", f"--root={tmp_path}", f"--out={tmp_path}/s.parquet"]
    done = subprocess.run([*command, "--layout=market1501"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "Left out: 1 junk images (identity -1).",
        f"{tmp_path}/s.parquet: 1 images, 1 identities, 1 persons, 1 cameras; the image folder is {tmp_path}",
    ]
    np.testing.assert_array_equal(read_samples(tmp_path / "s.parquet")["camera"], [1])
    refused = subprocess.run([*command, "--layout=msmt17"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2 and "msmt17 needs --split" in refused.stderr and "Traceback" not in refused.stderr
