"""Arbitrary tables, track files and sequence descriptions: values of the file, or an error of our own."""

import csv
import io
import json
from decimal import Decimal, InvalidOperation

import pyarrow as pa
import pyarrow.parquet
from hypothesis import given
from hypothesis import strategies as st

from cion_jax.samples import SampleTable, read_samples
from cion_jax.samples.motchallenge import KINDS, read_mot
from cion_jax.samples.seqinfo import read_seqinfo
from tests.fuzzing import SHORT, repeat

INTEGERS = ("frame", "identity", "person", "id")
NAMES = ("file_path", "video", "tracklet", "frame", "identity", "id", "person", "Frame", "track", " frame", "note")
WHOLE = st.one_of(st.integers(-1, 50), st.sampled_from([2**53 - 1, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), 10**40]))
NUMBERS = st.one_of(WHOLE, WHOLE.map(float), st.floats(allow_nan=False, allow_infinity=False))
TEXT = st.one_of(st.text(st.sampled_from("ab/\\. \"',;\t\n0é\0"), max_size=6), st.text(max_size=4))
CELLS = st.one_of(NUMBERS, TEXT, st.none(), st.booleans(), st.lists(st.integers(), max_size=2))


@st.composite
def tables(draw) -> list[dict]:
    """Records of which most are valid rows of a sample table and some have values of any kind."""
    names = ["file_path", *draw(st.lists(st.sampled_from(NAMES[1:]), unique=True, max_size=4))]
    usual = {name: WHOLE.filter(lambda x: x < 2**63) if name in INTEGERS else TEXT for name in names}
    usual["file_path"] = st.one_of(TEXT, st.integers(0, 999).map(lambda x: f"a\\{x}.jpg"))
    odd = draw(st.sampled_from([*names, None]))
    strategies = {name: CELLS if name == odd else usual[name] for name in names}
    records = draw(st.lists(st.fixed_dictionaries(strategies), min_size=1, max_size=5))
    for record in records:
        if draw(st.integers(0, 9)) == 0:
            record.pop(draw(st.sampled_from(names)))
    return records


def as_number(value) -> Decimal | None:
    try:
        return None if value is None or isinstance(value, bool) else Decimal(str(value).strip())
    except InvalidOperation:
        return None


def check_values(table: SampleTable, rows: list[dict], *, text: bool) -> None:
    """Asserts that the table has the values of `rows`, where `text` files have text for numbers."""
    rows = [{name.strip(): value for name, value in row.items()} for row in rows]
    assert len(table) == len(rows)
    for name in table.columns:
        if name not in (*INTEGERS, "file_path", "video", "tracklet") or name == "id":
            continue  # `id` is left only beside `identity`, as a column of any kind
        source = "id" if name == "identity" and all("identity" not in row for row in rows) else name
        for got, row in zip(table[name].tolist(), rows, strict=True):
            value = row[source]
            if name in INTEGERS or isinstance(got, int):
                assert as_number(value) == got
            else:
                expected = value.strip() if text else value
                assert got == (expected.replace("\\", "/") if name == "file_path" else expected)


def read_or_refuse(path, data: bytes) -> SampleTable | None:
    path.write_bytes(data)
    try:
        return read_samples(path)
    except ValueError as error:
        assert path.name in str(error) and len(str(error)) < 3000
        return None


def damage(draw, data: bytes) -> bytes:
    """`data` with up to three changes: bytes replaced, lost or inserted."""
    for _ in range(draw(st.integers(0, 3))):
        start, length = draw(st.integers(0, len(data))), draw(st.sampled_from([0, 1, 2, 30]))
        new = draw(
            st.one_of(st.binary(max_size=3), st.sampled_from([b",", b'"', b"\n", b"null", b"[" * 2000, b"1e999"]))
        )
        data = data[:start] + new + data[start + length :]
    return data


def test_json(tmp_path, fuzz_seconds):
    @SHORT
    @given(tables(), st.sampled_from(["", "\ufeff"]), st.booleans())
    def written(records, bom, ascii_only):
        lines = [json.dumps(record, ensure_ascii=ascii_only) for record in records]
        for name, text in (("s.json", f"[{','.join(lines)}]"), ("s.jsonl", "\n".join(lines))):
            try:
                data = (bom + text).encode()
            except UnicodeEncodeError:  # lone surrogates
                continue
            if table := read_or_refuse(tmp_path / name, data):
                check_values(table, records, text=False)

    repeat(written, fuzz_seconds)


def test_csv(tmp_path, fuzz_seconds):
    @SHORT
    @given(tables(), st.sampled_from(",;\t|"), st.sampled_from(["", "\ufeff"]), st.booleans())
    def written(records, delimiter, bom, quoted):
        names = list(dict.fromkeys(name for record in records for name in record))
        file = io.StringIO()
        writer = csv.DictWriter(
            file, names, delimiter=delimiter, quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL
        )
        writer.writeheader()
        writer.writerows(records)
        data = (bom + file.getvalue()).encode(errors="surrogatepass")
        if table := read_or_refuse(tmp_path / "s.csv", data):
            rows = list(csv.DictReader(io.StringIO(file.getvalue(), newline=""), delimiter=delimiter))
            check_values(table, rows, text=True)

    repeat(written, fuzz_seconds)


def test_parquet(tmp_path, fuzz_seconds):
    @SHORT
    @given(tables())
    def written(records):
        names = list(dict.fromkeys(name for record in records for name in record))
        try:
            arrow = pa.table({name: [record.get(name) for record in records] for name in names})
        except (pa.ArrowException, OverflowError, UnicodeEncodeError):
            return
        pyarrow.parquet.write_table(arrow, tmp_path / "s.parquet")
        if table := read_or_refuse(tmp_path / "s.parquet", (tmp_path / "s.parquet").read_bytes()):
            check_values(table, arrow.to_pylist(), text=False)

    repeat(written, fuzz_seconds)


def test_damaged_files(tmp_path, fuzz_seconds):
    @SHORT
    @given(tables(), st.sampled_from(["csv", "tsv", "json", "jsonl", "parquet", "csv.gz"]), st.data())
    def damaged(records, extension, data):
        lines = [json.dumps(record) for record in records]
        header = "file_path,video,frame\n" + "".join(f"a/{i},v,{i}\n" for i in range(4))
        parquet = io.BytesIO()
        pyarrow.parquet.write_table(pa.table({"file_path": ["a", "b"], "frame": [1, 2]}), parquet)
        whole = {"json": f"[{','.join(lines)}]".encode(), "jsonl": "\n".join(lines).encode()}
        whole |= {"csv": header.encode(), "tsv": header.replace(",", "\t").encode(), "parquet": parquet.getvalue()}
        read_or_refuse(tmp_path / f"s.{extension}", damage(data.draw, whole.get(extension, b"\x1f\x8b\x08\0" * 5)))

    repeat(damaged, fuzz_seconds)


ODD_TOKENS = st.sampled_from(["-1", "1.0", "", "nan", "1e999", "x", " 2", "+3", "٣"])
TOKENS = st.one_of(st.integers(-1, 9).map(str), NUMBERS.map(str), ODD_TOKENS)


@st.composite
def track_files(draw) -> bytes:
    """Lines of numbers, most of them valid, with a separator, a header, line ends and damage."""
    count, separator = draw(st.integers(6, 10)), draw(st.sampled_from([",", ", ", ";", "\t", " "]))
    usual = st.tuples(st.integers(1, 99), st.integers(-1, 2**63 - 1), *[st.integers(-9, 99)] * 4, *[st.just(-1)] * 4)
    lines = draw(st.lists(st.one_of(usual.map(lambda x: list(map(str, x))), st.lists(TOKENS, min_size=10)), max_size=5))
    header = draw(st.sampled_from(["", "frame,id,x,y,w,h,a,b,c,d", "frame,id,x1,y1,x2,y2"])).split(",")[:count]
    rows = [separator.join(row[:count]) for row in [header, *lines] if row != [""]]
    ending = draw(st.sampled_from(["\n", "\r\n", separator.strip() + "\n"]))
    return damage(draw, "".join(row + ending for row in rows).encode())


def test_track_files(tmp_path, fuzz_seconds):
    @SHORT
    @given(track_files(), st.sampled_from(KINDS), st.sampled_from([None, [1], [0, -1]]), st.integers(0, 1))
    def read(data, kind, classes, first_frame):
        (tmp_path / "t.txt").write_bytes(data)
        try:
            boxes = read_mot(tmp_path / "t.txt", kind, classes=classes, first_frame=first_frame)
        except ValueError as error:
            assert "t.txt" in str(error) and len(str(error)) < 3000
            return
        text = data.decode(errors="replace").removeprefix("\ufeff")
        for mark in ";\t, ":
            text = text.replace(mark, " ")
        known = [[as_number(word) for word in line.split()] for line in text.splitlines()]
        known = {(row[0], row[1]) for row in known if len(row) > 1}
        ids = [None] * len(boxes.frames) if boxes.ids is None else boxes.ids.tolist()
        frames = [frame - 1 + first_frame for frame in boxes.frames.tolist()]
        assert {frame for frame in frames} <= {frame for frame, _ in known}
        assert all(identity is None or (frame, identity) in known for frame, identity in zip(frames, ids, strict=True))
        assert (boxes.boxes[:, 2:] >= boxes.boxes[:, :2]).all()

    repeat(read, fuzz_seconds)


def test_sequence_descriptions(tmp_path, fuzz_seconds):
    values = st.one_of(st.integers(-1, 10**20).map(str), TEXT)
    keys = st.sampled_from(["imDir", "seqLength", "IMWIDTH", "imHeight", "x"])

    @SHORT
    @given(st.sampled_from(["[Sequence]", "[sequence]", "[x]", ""]), st.dictionaries(keys, values), st.data())
    def read(section, pairs, data):
        text = section + "\n" + "".join(f"{key}={value}\n" for key, value in pairs.items())
        content = damage(data.draw, text.encode(errors="surrogatepass"))
        (tmp_path / "seqinfo.ini").write_bytes(content)
        try:
            info = read_seqinfo(tmp_path / "seqinfo.ini")
        except ValueError as error:
            assert "seqinfo.ini" in str(error)
            return
        for number in (info.length, *(info.size or ())):
            assert number is None or str(number).encode() in content

    repeat(read, fuzz_seconds)
