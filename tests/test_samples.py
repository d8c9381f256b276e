"""Sample tables: round trips of every format, invalid content, and image decoding."""

import io
import json

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from cion_jax.samples import (
    SampleTable,
    UndecodableImage,
    check_images,
    load_batches,
    load_image,
    read_samples,
    resize,
    write_annotations,
    write_samples,
)


def example() -> SampleTable:
    return SampleTable.from_columns(
        file_path=["b/0.jpg", "a/1.jpg", "b/2.jpg", "a/3.jpg"],
        video=["west", "east", "west", "east"],
        tracklet=[7, 7, 7, 2],
        frame=np.array([10, 11, 12, 13], np.int32),
        identity=[0, 1, -1, 1],
    )


def rows_of(table: SampleTable) -> list[dict]:
    return table.arrow.to_pylist()


def write_text(folder, name, text):
    path = folder / name
    path.write_text(text)
    return path


# --- the table


def test_columns_are_numpy_arrays():
    table = example()
    assert len(table) == 4
    assert table["frame"].dtype == np.int64 and table["frame"].tolist() == [10, 11, 12, 13]
    assert table["file_path"].dtype == object and table["file_path"][1] == "a/1.jpg"
    with pytest.raises(ValueError, match=r"no column 'person'; it has file_path, video"):
        table["person"]


def test_codes_number_by_first_appearance_and_tracklets_belong_to_their_video():
    table = example()
    assert table.videos.tolist() == [0, 1, 0, 1]
    assert table.tracklets.tolist() == [0, 1, 0, 2]  # tracklet 7 of west is not tracklet 7 of east
    assert table.videos.dtype == table.tracklets.dtype == np.int32


def test_codes_of_a_table_in_several_chunks(tmp_path):
    parts = [rows_of(example().select([row])) for row in range(4)]
    lines = "\n".join(json.dumps(row) for part in parts for row in part)
    table = read_samples(write_text(tmp_path, "s.jsonl", lines))
    halves = SampleTable(pa.concat_tables([table.arrow.slice(0, 2), table.arrow.slice(2)]))
    assert halves.tracklets.tolist() == example().tracklets.tolist()


def test_with_columns_and_select_leave_the_original_alone():
    table = example()
    scored = table.with_columns(person=np.array([5, 6, 7, 8]), identity=[3, 3, 3, 3])
    assert scored["identity"].tolist() == [3, 3, 3, 3] and table["identity"].tolist() == [0, 1, -1, 1]
    assert "person" not in table.columns
    assert scored.select([2, 0])["person"].tolist() == [7, 5]
    assert scored.select(table["identity"] >= 0)["person"].tolist() == [5, 6, 8]


@pytest.mark.parametrize(
    ("rows", "message"),
    [([], "no row"), ([1, 1], "more than once"), (np.array([True, False]), "mask of shape")],
)
def test_select_refuses(rows, message):
    with pytest.raises(ValueError, match=message):
        example().select(rows)


PATHS = ["a", "b", "c"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"video": [1]}, "no column 'file_path' .columns found: video"),
        ({"file_path": []}, "no rows"),
        ({"file_path": [1, 2, 3]}, "column 'file_path' holds int64, expected strings"),
        ({"file_path": ["a", None, "c"]}, "column 'file_path' has no value in 1 of 3 rows .from 0.: row 1"),
        ({"file_path": ["a", "", "c"]}, "empty.*row 1"),
        ({"file_path": ["a", "b", "a"]}, "more than once in 2 of 3 rows .*row 0: 'a', row 2: 'a'"),
        ({"file_path": ["x//a", "b", "./x/././a"]}, "more than once in 2 of 3 rows"),
        ({"file_path": ["a", "/etc/passwd", "c"]}, "absolute.*row 1: '/etc/passwd'"),
        ({"file_path": ["a", "b", r"C:\c"]}, "absolute.*row 2"),
        ({"file_path": ["a", "x/../../b", "c"]}, r"'\.\.'.*row 1: 'x/../../b'"),
        ({"file_path": ["..", "b", "c"]}, r"'\.\.'.*row 0"),
        (
            {"file_path": PATHS, "frame": [1.0, 2.0, 3.5]},
            "'frame', expected integers, holds no whole number .*row 2: 3.5",
        ),
        ({"file_path": PATHS, "frame": ["1", "2", "3"]}, "column 'frame' holds string, expected integers"),
        (
            {"file_path": PATHS, "video": [True, False, True]},
            "'video' holds bool, expected strings or integers",
        ),
        ({"file_path": PATHS, "video": ["x", 3, "y"]}, "'video'.*more than one type"),
        ({"file_path": PATHS, "identity": [0, None, 1]}, "column 'identity' has no value .*row 1"),
        ({"file_path": PATHS, "identity": [0, -2, 1]}, "identity below -1 .*row 1: -2"),
        ({"file_path": PATHS, "identity": [0, 1]}, "different lengths.*'file_path': 3, 'identity': 2"),
    ],
)
def test_bad_content_is_refused(columns, message):
    with pytest.raises(ValueError, match=message):
        SampleTable.from_columns(**columns)


def test_names_that_only_resemble_parent_folders_are_accepted():
    SampleTable.from_columns(file_path=["..a/b", "a../b", "a/...", "a/b..jpg", ".hidden/.x"])


def test_messages_show_a_few_rows_of_many():
    with pytest.raises(ValueError, match=r"100 of 101 rows") as caught:
        SampleTable.from_columns(file_path=["ok"] + [f"/{i}" for i in range(100)])
    assert len(str(caught.value)) < 300


def test_added_columns_are_checked():
    with pytest.raises(ValueError, match="expected integers"):
        example().with_columns(identity=np.full(4, 0.5))
    with pytest.raises(ValueError, match="3 rows, the table has 4"):
        example().with_columns(identity=[1, 2, 3])
    with pytest.raises(ValueError, match="more than once"):
        example().with_columns(file_path=["a", "a", "b", "c"])


# --- formats


def test_parquet_round_trip_keeps_everything(tmp_path):
    table = example().with_columns(score=[0.5, 1.5, 2.5, 3.5])
    write_samples(table, tmp_path / "s.parquet")
    assert read_samples(tmp_path / "s.parquet").arrow.equals(table.arrow)
    assert [path.name for path in tmp_path.iterdir()] == ["s.parquet"]


@pytest.mark.parametrize("extension", ["json", "jsonl", "csv"])
def test_text_formats_agree(tmp_path, extension):
    rows = [row | {"note": "ignored"} for row in rows_of(example())]
    if extension == "csv":
        text = "\n".join([",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)])
    else:
        text = json.dumps(rows) if extension == "json" else "\n".join(map(json.dumps, rows))
    table = read_samples(write_text(tmp_path, f"s.{extension}", text))
    assert table.columns == example().columns
    for name in table.columns:
        as_stored = np.vectorize(str)(example()[name]) if extension == "csv" else example()[name]
        assert table[name].astype(as_stored.dtype).tolist() == as_stored.tolist(), name
    assert table.tracklets.tolist() == example().tracklets.tolist()


def test_labels_are_not_guessed_to_be_numbers_or_dates(tmp_path):
    table = read_samples(write_text(tmp_path, "s.csv", "file_path,video,tracklet\na,1,007\nb,1,7\n"))
    assert table["tracklet"].tolist() == ["007", "7"]
    line = '{"file_path": "%s", "video": "2024-05-01", "tracklet": 3}\n'
    table = read_samples(write_text(tmp_path, "s.jsonl", line % "a" + line % "b"))
    assert table["video"].tolist() == ["2024-05-01"] * 2 and table["tracklet"].tolist() == [3, 3]


def test_annotations_are_read_as_identities(tmp_path):
    # The keys of SYNTH-PEDES; CION-AL has only the first two.
    records = [
        {"id": 4, "file_path": "Part1/4/0.jpg", "attributes": ["man,short hair"], "captions": ["x", "y"]},
        {"id": 0, "file_path": "Part1/0/0.jpg", "attributes": [], "captions": []},
    ]
    table = read_samples(write_text(tmp_path, "annos.json", json.dumps(records)))
    assert table.columns == ("file_path", "identity") and table["identity"].tolist() == [4, 0]


def test_annotations_omit_discarded_rows_and_round_trip(tmp_path):
    write_annotations(example(), tmp_path / "annotations.json")
    records = json.loads((tmp_path / "annotations.json").read_text())
    assert records == [
        {"id": 0, "file_path": "b/0.jpg"},
        {"id": 1, "file_path": "a/1.jpg"},
        {"id": 1, "file_path": "a/3.jpg"},
    ]
    assert read_samples(tmp_path / "annotations.json")["identity"].tolist() == [0, 1, 1]
    with pytest.raises(ValueError, match="nothing to annotate"):
        write_annotations(example().with_columns(identity=[-1] * 4), tmp_path / "none.json")
    with pytest.raises(ValueError, match="no column 'identity'"):
        write_annotations(SampleTable.from_columns(file_path=["a"]), tmp_path / "none.json")
    assert not (tmp_path / "none.json").exists()


def test_annotations_of_more_than_one_block(tmp_path, monkeypatch):
    monkeypatch.setattr("cion_jax.samples.formats.ROWS_PER_WRITE", 3)
    table = SampleTable.from_columns(file_path=[f'"{i}"é.jpg' for i in range(8)], identity=range(8))
    write_annotations(table, tmp_path / "a.json")
    assert [record["file_path"] for record in json.loads((tmp_path / "a.json").read_text())] == list(table["file_path"])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("s.txt", "a", r"unknown extension '.txt', expected one of .parquet, .json, .jsonl, .ndjson, .csv, .tsv"),
        ("s.csv", "", "s.csv: the file is empty"),
        ("s.csv", "path,frame\na,1\n", "no column 'file_path' .columns found: path, frame"),
        pytest.param("s.csv", "x" * 9000 + ",frame\na,1\n", r"found: x{37}\.\.\., frame\)$", id="long name"),
        pytest.param("s.csv", "[" * 9000 + "path,b\na,1\n", r"found: \[{37}\.\.\., b\)$", id="long name like path"),
        (
            "s.csv",
            "file_path,frame\na,1\nb,x\n",
            "'frame', expected integers, holds no whole number in 1 of 2 rows .*row 1: 'x'",
        ),
        ("s.csv", "file_path,frame\na,1\nb,\n", "'frame' has no value.*row 1"),
        ("s.csv", "file_path,frame\na,1\nb\n", "Row #3: Expected 2 columns, got 1"),
        ("s.json", "{}", "a JSON dict, expected a list"),
        ("s.json", "[]", "no column 'file_path'"),
        ("s.json", '[{"file_path": "a"}, 3]', "row 1 .from 0. is 3, expected an object"),
        ("s.json", '[{"file_path": "a"}, {"file_', "s.json: not a JSON file.*truncated"),
        ("s.json", '[{"file_path": "a", "id": 1}, {"file_path": "b"}]', "'identity' has no value.*row 1"),
        ("s.json", '[{"file_path": "a", "id": "1"}]', "'identity' holds string, expected integers"),
        ("s.jsonl", "", "s.jsonl: the file is empty"),
        ("s.jsonl", "[1]\n", r"line 1 is \[1\], expected an object"),
        ("s.jsonl", '{"file_path": "a"}\n{"file_pa', "s.jsonl: cannot be read, broken or truncated in line 2"),
        ("s.jsonl", '{"file_path": "a", "video": 1}\n{"file_path": "b", "video": "x"}\n', "video.*row 1"),
        ("s.parquet", "PAR1 not really", "s.parquet: cannot be read, broken or truncated"),
    ],
)
def test_broken_files_are_refused(tmp_path, name, text, message):
    with pytest.raises(ValueError, match=message):
        read_samples(write_text(tmp_path, name, text))


def test_truncated_parquet_and_missing_file(tmp_path):
    write_samples(example(), tmp_path / "s.parquet")
    data = (tmp_path / "s.parquet").read_bytes()
    (tmp_path / "s.parquet").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="broken or truncated"):
        read_samples(tmp_path / "s.parquet")
    with pytest.raises(ValueError, match="no such file"):
        read_samples(tmp_path / "other.parquet")
    with pytest.raises(ValueError, match=r"ends in \.parquet"):
        write_samples(example(), tmp_path / "s.csv")


# --- images


def picture(seed: int = 0, size: tuple[int, int] = (40, 20)) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 2, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC)


@pytest.mark.parametrize(
    ("mode", "extension"),
    [
        ("RGB", "jpg"),
        ("L", "jpg"),
        ("CMYK", "jpg"),
        ("RGB", "png"),
        ("RGBA", "png"),
        ("P", "png"),
        ("L", "png"),
    ],
)
def test_every_colour_mode_becomes_rgb(tmp_path, mode, extension):
    path = tmp_path / f"x.{extension}"
    picture().convert(mode).save(path)
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
    got = load_image(path)
    assert got.dtype == np.uint8
    rounding = 1 if mode == "CMYK" else 0  # the two decoders round CMYK differently
    np.testing.assert_allclose(got.astype(int), expected.astype(int), rtol=0, atol=rounding)


def test_jpegs_are_the_same_without_simplejpeg(tmp_path, monkeypatch):
    picture(size=(61, 35)).save(tmp_path / "x.jpg", quality=80)
    fast = load_image(tmp_path / "x.jpg")
    monkeypatch.setattr("cion_jax.samples.images.simplejpeg", None)
    np.testing.assert_array_equal(load_image(tmp_path / "x.jpg"), fast)


def encoded(**options) -> bytes:
    buffer = io.BytesIO()
    picture(size=(64, 32)).save(buffer, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not an image",
        encoded(format="JPEG")[:-200],
        encoded(format="JPEG")[:10],
        encoded(format="PNG")[:-60],
        encoded(format="PNG")[:40],
    ],
)
def test_broken_images_are_undecodable(tmp_path, data):
    (tmp_path / "x.jpg").write_bytes(data)
    with pytest.raises(UndecodableImage, match=r"x\.jpg"):
        load_image(tmp_path / "x.jpg")


def test_a_missing_image_is_undecodable(tmp_path):
    with pytest.raises(UndecodableImage, match=r"gone.jpg: cannot be read \(No such file"):
        load_image(tmp_path / "gone.jpg")


def test_resize_takes_height_first_and_averages_when_it_shrinks():
    stripes = np.zeros((64, 32, 3), np.uint8)
    stripes[::2] = 200
    small = resize(stripes, (16, 8))
    assert small.shape == (16, 8, 3)
    assert np.abs(small.astype(int) - 100).max() <= 12  # without antialiasing: 0 or 200
    assert resize(stripes, (64, 32)) is stripes


def test_check_images_reports_undecodable_files(tmp_path):
    table = SampleTable.from_columns(file_path=[f"{i}.jpg" for i in range(50)])
    with pytest.raises(ValueError, match="no such folder"):
        check_images(table, tmp_path / "nowhere")
    for i in range(50):
        (tmp_path / f"{i}.jpg").touch()
    check_images(table, tmp_path)
    for i in range(3, 23):
        (tmp_path / f"{i}.jpg").unlink()
    # A sample of 10 of 50 misses all 20 missing files with probability 0.3 %; seed 0 does not.
    with pytest.raises(ValueError, match=r"20 of 50 images are not under .*: row 3: '3.jpg', .*row 7: '7.jpg', \.\.\."):
        check_images(table, tmp_path, sample=10)


def test_batches_are_in_order_and_of_equal_shape(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(11)]
    for i, path in enumerate(paths):
        Image.new("RGB", (20, 40), (i, 0, 0)).save(path)
    paths[4].write_bytes(b"broken")
    paths[10].unlink()
    batches = list(load_batches(paths, (8, 4), batch_size=3))
    assert {batch.images.shape for batch in batches} == {(3, 8, 4, 3)}
    seen = {int(row): int(b.images[slot, 0, 0, 0]) for b in batches for slot, row in zip(b.slots, b.rows)}
    assert seen == {row: row for row in range(10) if row != 4}
    assert sorted(row for batch in batches for row in batch.undecodable) == [4, 10]
