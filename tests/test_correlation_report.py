"""The summary of a correlation, and the contact sheet of identities across videos."""

import numpy as np
import pytest
from PIL import Image

from cion_jax.reporting.correlation_report import _from_all_videos, identities_sheet, print_summary
from cion_jax.samples import SampleTable

COLOURS = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)])


def street(folder, identities, videos):
    """A table whose images show the colour of their video, saved without loss."""
    names = [f"{row}.png" for row in range(len(videos))]
    for name, video in zip(names, videos):
        Image.new("RGB", (16, 32), tuple(COLOURS[video].tolist())).save(folder / name)
    tracklets = np.arange(len(videos))
    return SampleTable.from_columns(file_path=names, video=videos, tracklet=tracklets, identity=identities)


def shown(path):
    """Number of crops of each video's colour, by row of the sheet."""
    pixels = np.asarray(Image.open(path))
    return [int((pixels == colour).all(-1).sum()) // (128 * 64) for colour in COLOURS]


def test_the_sheet_shows_identities_of_several_videos_only(tmp_path):
    identities = np.array([0, 0, 1, 1, 2, 2, -1, -1])
    videos = np.array([0, 1, 2, 2, 0, 1, 3, 2])
    assert identities_sheet(street(tmp_path, identities, videos), tmp_path, tmp_path / "sheet.png") == 0
    assert shown(tmp_path / "sheet.png") == [2, 2, 0, 0]


def test_images_that_cannot_be_read_are_left_out_and_counted(tmp_path):
    table = street(tmp_path, np.array([0, 0, 0, 0]), np.array([0, 1, 2, 3]))
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:40])
    (tmp_path / "3.png").unlink()
    assert identities_sheet(table, tmp_path, tmp_path / "sheet.png") == 2
    assert shown(tmp_path / "sheet.png") == [1, 0, 1, 0]
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(ValueError, match=r"none of 4 images can be read; is this the table's image root\?"):
        identities_sheet(table, tmp_path / "elsewhere", tmp_path / "other.png")
    assert not (tmp_path / "other.png").exists()


def test_without_an_identity_across_videos_there_is_no_sheet(tmp_path):
    table = street(tmp_path, np.array([0, 0, 1, -1]), np.array([0, 0, 1, 2]))
    assert identities_sheet(table, tmp_path, tmp_path / "sheet.png") is None
    assert not (tmp_path / "sheet.png").exists()


def test_every_video_comes_before_a_second_crop_of_any():
    videos = np.repeat([0, 1, 2], [50, 1, 3])
    members = np.random.default_rng(0).permutation(54)
    row = _from_all_videos(members, videos[members])
    assert len(row) == 14 and np.bincount(videos[row]).tolist() == [10, 1, 3]
    many = _from_all_videos(np.arange(60), np.arange(60) // 2)
    assert len(set((many // 2).tolist())) == 14 and many[0] // 2 == 0 and many[-1] // 2 == 29


def test_the_summary_of_a_hundred_million_images_fits_a_terminal(capsys):
    entry = {"level": 3, "identities": 12_345_678, "images_kept": 98_765_432, "images_discarded": 1_234_568}
    entry |= {"noise": 1234.5, "noise_consistency": 0.123, "noise_discrimination": 1234.4, "seconds": 54321.0}
    report = {"images": 100_000_000, "seconds": 98765.4, "levels": [entry]}
    print_summary(report)
    assert "Accuracy" not in capsys.readouterr().out
    entry |= {"covisible_links": 1_234_567, "covisible_identities": 7_654_321}
    entry["pairwise"] = {"precision": 1.0, "recall": 0.987, "f1": 0.5, "purity": 0.4321}
    print_summary(report)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["3", "12,345,678", "98,765,432", "1,234,568", "1234.500", "0.123", "1234.400", "54,321.0"] in lines
    assert ["3", "1,234,567", "7,654,321", "100.0%", "98.7%", "50.0%", "43.2%"] in lines
    assert max(len(" ".join(line)) for line in lines) < 80
