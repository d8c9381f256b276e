"""Sample tables as other programs write them: the values that their authors meant, or an error that names the rows."""

import gzip
import json
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from cion_jax.samples import SampleTable, read_samples

BIG = 2**53 + 1  # the first integer that float64 does not have


def read(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_samples(path)


def columns_of(table: SampleTable) -> dict[str, list]:
    return {name: table[name].tolist() for name in table.columns}


PLAIN = {"file_path": ["a/1.jpg", "a/2.jpg"], "video": ["v", "v"], "frame": [1, 2]}


LINES = ['{"file_path": "a/1.jpg", "video": "v", "frame": 1}', '{"frame": 2, "video": "v", "file_path": "a/2.jpg"}']


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("spaces.csv", "file_path, video, frame\na/1.jpg, v, 1\na/2.jpg, v, 2\n"),
        ("quoted.csv", '"file_path", "video", "frame"\n"a/1.jpg", "v", "1"\n"a/2.jpg", "v", "2"\n'),
        ("semicolons.csv", "file_path;video;frame\na/1.jpg;v;1\na/2.jpg;v;2\n"),
        ("tabs.csv", "file_path\tvideo\tframe\na/1.jpg\tv\t1\na/2.jpg\tv\t2\n"),
        ("tabs.TSV", "file_path\tvideo\tframe\na/1.jpg\tv\t1\na/2.jpg\tv\t2\n"),
        ("bom.csv", "\ufefffile_path,video,frame\r\na/1.jpg,v,1\r\na/2.jpg,v,2\r\n"),
        ("compressed.csv.gz", gzip.compress(b"file_path,video,frame\na/1.jpg,v,1\na/2.jpg,v,2\n")),
        ("windows.csv", "file_path,video,frame\na\\1.jpg,v,1\na\\2.jpg,v,2\n"),
        ("whole.csv", "file_path,video,frame\na/1.jpg,v,1.0\na/2.jpg,v,+2\n"),
        ("index.csv", ",file_path,video,frame\n0,a/1.jpg,v,1\n1,a/2.jpg,v,2\n"),
        ("empty.csv", "file_path,video,frame,identity\na/1.jpg,v,1,\na/2.jpg,v,2,\n"),
        ("bom.json", f"\ufeff[{','.join(LINES)}]"),
        ("bom.jsonl", "\ufeff" + "\n".join(LINES)),
        ("x.ndjson", "\n\n".join(LINES).replace('"frame": 1', '"frame": 1.0')),
        ("compressed.jsonl.gz", gzip.compress("\n".join(LINES).encode())),
    ],
)
def test_spellings_of_one_table(tmp_path, name, content):
    assert columns_of(read(tmp_path, name, content)) == PLAIN


@pytest.mark.parametrize("extension", ["json", "jsonl"])
def test_keys_are_those_of_all_records(tmp_path, extension):
    records = [{"file_path": "a"}, {"file_path": "b", "id": 4, "frame": None}]
    text = json.dumps(records) if extension == "json" else "\n".join(map(json.dumps, records))
    with pytest.raises(ValueError, match=r"'identity' has no value \(-1 discards a row\) in 1 of 2 .*row 0"):
        read(tmp_path, f"s.{extension}", text)


@pytest.mark.parametrize("extension", ["json", "jsonl"])
def test_integers_are_exact(tmp_path, extension):
    records = [{"file_path": str(i), "identity": value} for i, value in enumerate([BIG, BIG - 1, 2**63 - 1])]
    text = json.dumps(records) if extension == "json" else "\n".join(map(json.dumps, records))
    assert read(tmp_path, f"s.{extension}", text)["identity"].tolist() == [BIG, BIG - 1, 2**63 - 1]
    for value in ("9007199254740993.0", str(2**63), "1" * 5000, "true", '"\\ud800"', "[" * 3000):
        with pytest.raises(ValueError, match=r"s\.json"):
            read(tmp_path, f"s.{extension}", text.replace(str(2**63 - 1), value))


def test_numbers_in_text_are_exact_or_refused(tmp_path):
    table = read(tmp_path, "s.csv", f"file_path,identity\na,{BIG}\nb,3.0\nc,{BIG - 1}\n")
    assert table["identity"].tolist() == [BIG, 3, BIG - 1]
    for value, reason in [
        (f"{BIG}.0", "above 2.53, where different ids become one"),
        (str(2**63), "beyond 64 bits"),
        ("3.5", "no whole number"),
        ("inf", "no whole number"),
    ]:
        with pytest.raises(ValueError, match=rf"'identity', expected integers, holds .*{reason}.* in 1 of 2 .*row 1"):
            read(tmp_path, "s.csv", f"file_path,identity\na,1\nb,{value}\n")


def test_ids_in_csv_annotations(tmp_path):
    assert read(tmp_path, "s.csv", "id,file_path\n7,a\n8,b\n")["identity"].tolist() == [7, 8]


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array([1.0, 2.0], pa.float32()), [1, 2]),
        (pa.array([BIG, 1], pa.uint64()), [BIG, 1]),
        (pa.array([Decimal("1.00"), Decimal("2.00")]), [1, 2]),
        (pa.array([3, 4], pa.int8()).dictionary_encode(), [3, 4]),
    ],
)
def test_parquet_numbers(tmp_path, array, expected):
    pyarrow.parquet.write_table(pa.table({"file_path": ["a", "b"], "id": array}), tmp_path / "s.parquet")
    assert read_samples(tmp_path / "s.parquet")["identity"].tolist() == expected


def test_parquet_numbers_that_are_no_integers(tmp_path):
    for values in ([1.0, float("nan")], [1.0, 1.5], [1.0, 2.0**53], np.array([1, 2**63], np.uint64), [False, True]):
        table = pa.table({"file_path": ["a", "b"], "identity": pa.array(values)})
        pyarrow.parquet.write_table(table, tmp_path / "s.parquet")
        with pytest.raises(ValueError, match=r"s\.parquet: column 'identity'"):
            read_samples(tmp_path / "s.parquet")


@pytest.mark.parametrize("type_", [pa.string_view(), pa.binary(), pa.binary_view(), pa.large_binary(), pa.binary(2)])
def test_parquet_text(tmp_path, type_):
    table = pa.table({"file_path": pa.array([b"\xc3\xa9", b"b2"]).cast(type_), "video": ["v", "w"]})
    pyarrow.parquet.write_table(table, tmp_path / "s.parquet")
    assert read_samples(tmp_path / "s.parquet")["file_path"].tolist() == ["é", "b2"]


def test_text_that_is_not_utf8_is_refused(tmp_path):
    pyarrow.parquet.write_table(pa.table({"file_path": [b"a", b"\xe9"]}), tmp_path / "s.parquet")
    with pytest.raises(ValueError, match=r"'file_path' holds text that is not UTF-8 in 1 of 2 rows .*row 1: b'\\xe9'"):
        read_samples(tmp_path / "s.parquet")
    with pytest.raises(ValueError, match=r"s\.csv: .*(UTF-?8|utf-8)"):
        read(tmp_path, "s.csv", "file_path,video\na,é\n".encode("latin-1"))


def test_paths_that_are_one_after_conversion_are_refused(tmp_path):
    with pytest.raises(ValueError, match="more than once"):
        read(tmp_path, "s.csv", "file_path\na\\1.jpg\na/1.jpg\n")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("s.csv", "file_path,frame,frame\na,1,2\n", "column 'frame' appears more than once in file_path, frame, frame"),
        ("s.csv", "file_path, frame ,frame\na,1,2\n", "column 'frame' appears more than once"),
        ("s.csv", "FILE_PATH,frame\na,1\n", "no column 'file_path' .*; rename 'FILE_PATH' if it is meant"),
        ("s.csv", "filename,pid\na,1\n", "no column 'file_path' .*; rename 'filename' if it is meant"),
        ("s.csv", "file_path\r\n", "no rows"),
        ("s.jsonl", '{"file_path": "a"}\nnull\n', r"line 2 is None, expected an object"),
        ("s.jsonl", '[{"file_path": "a"}]', r"line 1 is .*a JSON list is read from a name that ends in \.json"),
        ("s.json", '{"file_path": "a"}\n{"file_path": "b"}', r"it looks like JSON lines, whose name ends in \.jsonl"),
        ("s.json", '{"file_path": {"0": "a"}}', "a JSON dict, expected a list of objects .*orient='records'"),
        ("s.json", '[{"file_path": "a", "file_path": "b"}]', "key 'file_path' is twice in an object"),
        ("s.json", '[{"file_path": "a", " frame": 1}]', "key ' frame' has white space around it"),
        ("s.json", '[{"file_path": "a", "video": ["x"]}]', "'video' holds list"),
        ("s.csv", "<!DOCTYPE html><html>", "is a web page"),
        ("s.json", "version https://git-lfs.github.com/spec/v1\n", "git-lfs pointer"),
        ("s.csv", gzip.compress(b"file_path\na\n"), "is compressed with gzip"),
        ("s.csv.gz", gzip.compress(b"file_path\na\n" * 50)[:-9], r"s\.csv\.gz: cannot be read"),
        ("s.parquet.gz", b"x", "unknown extension"),
    ],
)
def test_refused(tmp_path, name, content, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, name, content)


@pytest.mark.parametrize(
    ("header", "noted"),
    [
        ("file_path,track_id,vid", "'track_id' (for 'tracklet'?)"),
        ("file_path,Frame,x", "'Frame' (for 'frame'?)"),
        ("file_path,frame_no,pid", "'pid' (for 'identity'?)"),
    ],
)
def test_names_that_resemble_a_column_are_noted(tmp_path, capsys, header, noted):
    assert read(tmp_path, "s.csv", header + "\na,1,2\n").columns == ("file_path",)
    assert noted in capsys.readouterr().err


def test_ignored_names_are_not_noted_if_they_resemble_none(tmp_path, capsys):
    read(tmp_path, "s.csv", "file_path,score,width\na,1,2\n")
    assert not capsys.readouterr().err
