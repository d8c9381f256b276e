"""Sequence descriptions: values in any spelling, and what is refused."""

import pytest

from cion_jax.samples.seqinfo import SequenceInfo, find_seqinfo, read_seqinfo


@pytest.mark.parametrize(
    "text",
    [
        "[Sequence]\nimDir=a/b\nseqLength=525\nimWidth=1920\nimHeight=1080\n",
        "\ufeff[Sequence]\r\nimDir = a\\b\r\nseqLength = 525\r\nimWidth = 1920\r\nimHeight = 1080\r\n",
        "[SEQUENCE]\nIMDIR=a/b\nseqlength=525\nimwidth=1920\nIMHEIGHT=1080\nname=50%\n",
    ],
)
def test_spellings(tmp_path, text):
    (tmp_path / "SeqInfo.INI").write_bytes(text.encode())
    assert read_seqinfo(find_seqinfo(tmp_path)) == SequenceInfo("a/b", 525, (1920, 1080))


def test_nothing_is_required(tmp_path):
    (tmp_path / "seqinfo.ini").write_text("[Sequence]\n")
    assert read_seqinfo(tmp_path / "seqinfo.ini") == SequenceInfo("img1", None, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[Other]\na=1\n", r"expected a section \[Sequence\] \(it has \['Other'\]\)"),
        ("[Sequence]\nseqLength=1_000\n", "seqLength is '1_000', expected a positive integer"),
        ("[Sequence]\nseqLength=-5\n", "seqLength is '-5'"),
        ("[Sequence]\nimWidth=1920.0\nimHeight=1080\n", "imWidth is '1920.0'"),
        ("[Sequence]\nseqLength=1\nseqLength=2\n", "seqlength"),
        ("[Sequence]\nimDir=\0\n", "imDir is"),
        (b"[Sequence]\nname=\xff", "utf-8"),
        ("version https://git-lfs.github.com/spec/v1\n", "git-lfs pointer"),
    ],
)
def test_refused(tmp_path, text, message):
    (tmp_path / "seqinfo.ini").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=rf"seqinfo\.ini: .*{message}"):
        read_seqinfo(tmp_path / "seqinfo.ini")
