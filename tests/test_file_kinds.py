"""Files that are not what their name says are named by kind, with a remedy."""

import io
import lzma
import re
import tarfile
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch

from cion_jax.runtime.file_kinds import recognised_at, recognised_bytes


def _tar() -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("1.jpg"))
    return written.getvalue()


def _zip() -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr("1.jpg", b"x")
    return written.getvalue()


def _saved(save) -> bytes:
    written = io.BytesIO()
    save(written)
    return written.getvalue()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 12345\n"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "an empty file"),
        (b"\xef\xbb\xbf\r\n<!DOCTYPE html>\n<html><title>Google Drive - Quota exceeded", "an HTML page, .* download"),
        (b"<HTML><body>404 Not Found", "an HTML page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "an XML document, .* download"),
        (POINTER, "a git-lfs pointer; run `git lfs pull`"),
        (b"/annex/objects/SHA256E-s31390--f50d7ac4.jpg\n", "a git-annex pointer; run `git annex get`"),
        (b'{"error": "rate limit"}', "a JSON document"),
        (_tar(), "a tar archive; unpack it"),
        (lzma.compress(_tar()), "compressed with xz; unpack it"),
        (_zip(), "a zip archive; unpack it"),
        (_zip()[:-10], "a zip archive that is cut off"),
        (_saved(lambda file: torch.save({"a": torch.zeros(1)}, file)), "a file of PyTorch weights"),
        (_saved(lambda file: np.save(file, np.zeros(3))), "a NumPy array"),
        (_saved(lambda file: pyarrow.parquet.write_table(pa.table({"a": [1]}), file)), "a Parquet table"),
    ],
)
def test_kinds_are_named_with_a_remedy(data, kind, tmp_path):
    (tmp_path / "file").write_bytes(data)
    assert re.match(kind, recognised_bytes(data) or "") and recognised_at(tmp_path / "file") == recognised_bytes(data)


def test_a_torchscript_archive_is_told_from_weights():
    with pytest.warns(DeprecationWarning):  # PyTorch advises against TorchScript, but people have such files
        program = torch.jit.script(torch.nn.Linear(2, 2))
    assert recognised_bytes(program.save_to_buffer()).startswith("a TorchScript archive")


def test_what_is_unknown_has_no_name(tmp_path):
    assert recognised_bytes(b"anything else") is None
    assert recognised_at(tmp_path) is None and recognised_at(tmp_path / "nothing") is None
