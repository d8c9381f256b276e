"""Files that are not what their name promises are recognised by their first bytes."""

import bz2
import gzip
import io
import lzma
import pickle
import sqlite3
import tarfile
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from PIL import Image

from cion_jax.runtime.file_kinds import kind_of, refuse_other_kinds


def archive(kind) -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as file:
            file.writestr("a.csv", "file_path\na\n")
    else:
        with tarfile.open(fileobj=buffer, mode="w") as file:
            file.addfile(tarfile.TarInfo("a.csv"), io.BytesIO())
    return buffer.getvalue()


def written(write) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def database(folder) -> bytes:
    with sqlite3.connect(folder / "x.db") as connection:
        connection.execute("create table t (x)")
    return (folder / "x.db").read_bytes()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
TABLE = pa.table({"x": [1]})
FILES = {
    "empty": lambda folder: b"",
    "html": lambda folder: b"\xef\xbb\xbf\n<!DOCTYPE html>\n<html><title>Google Drive - Virus scan warning</title>",
    "xml": lambda folder: b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
    "git-lfs": lambda folder: LFS,
    "git-annex": lambda folder: b"/annex/objects/SHA256E-s10--abc.csv\n",
    "utf-16": lambda folder: "file_path\na\n".encode("utf-16"),
    "gzip": lambda folder: gzip.compress(b"file_path\n"),
    "bzip2": lambda folder: bz2.compress(b"file_path\n"),
    "xz": lambda folder: lzma.compress(b"file_path\n"),
    "zip": lambda folder: archive("zip"),
    "tar": lambda folder: archive("tar"),
    "parquet": lambda folder: written(lambda file: pyarrow.parquet.write_table(TABLE, file)),
    "arrow": lambda folder: written(lambda file: pyarrow.feather.write_feather(TABLE, file)),
    "numpy": lambda folder: written(lambda file: np.save(file, np.zeros(2))),
    "sqlite": database,
    "pickle": lambda folder: pickle.dumps({"keys": []}),
    "image": lambda folder: written(lambda file: Image.new("RGB", (2, 2)).save(file, "WEBP")),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_is_recognised(tmp_path, kind):
    file = tmp_path / "x.csv"
    file.write_bytes(FILES[kind](tmp_path))
    assert kind_of(file) == kind
    with pytest.raises(ValueError, match=r"x\.csv: the file is .*; "):
        refuse_other_kinds(file)
    refuse_other_kinds(file, "other", kind)


@pytest.mark.parametrize("content", ["file_path,video\na,b\n", "1,1,2,3,4,5\n", '[{"id": 1}]', '{"id": 1}', "<3", "é"])
def test_text_is_of_no_other_kind(tmp_path, content):
    (tmp_path / "x").write_text(content, encoding="utf-8-sig")
    assert kind_of(tmp_path / "x") is None
    refuse_other_kinds(tmp_path / "x")


def test_remedies(tmp_path):
    (tmp_path / "x").write_bytes(LFS)
    with pytest.raises(ValueError, match="git-lfs pointer, not the file itself; run `git lfs pull`"):
        refuse_other_kinds(tmp_path / "x")
