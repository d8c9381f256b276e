"""MSMT17 in each layout in circulation, with empty image files: readers use only names and lists."""

import pytest

from cion_jax.evaluation import read_msmt17

QUERY = {"0000/0000_000_05_0303morning_0508_0.jpg": 0, "0001/0001_004_15_0302noon_0001_2.jpg": 1}
GALLERY = {"0001/0001_009_02_0302noon_0011_0.jpg": 1, "0000/0000_010_15_0303morning_0044_3.jpg": 0}


def make_lists(root, folder="test"):
    for name, images in {"query": QUERY, "gallery": GALLERY}.items():
        for path in images:
            (root / folder / path).parent.mkdir(parents=True, exist_ok=True)
            (root / folder / path).touch()
        (root / f"list_{name}.txt").write_text("".join(f"{path} {pid}\n" for path, pid in images.items()))


def make_folders(root):
    names = {
        "query": ["0003_c15_0002.jpg"],
        "bounding_box_test": ["0003_c2_0007.jpg", "0000_c10_0001.jpg"],
    }
    for folder, files in names.items():
        (root / folder).mkdir(parents=True)
        for name in files:
            (root / folder / name).touch()


@pytest.mark.parametrize(
    ("place", "folder", "words"),
    [
        ("MSMT17_V1", "test", "test/ (as V1)"),
        ("MSMT17_V2", "mask_test_v2", "mask_test_v2/ (V2, faces masked)"),
        ("MSMT17", "test", "test/ (as V1)"),
        (".", "mask_test_v2", "faces masked"),
    ],
)
def test_msmt17_lists_are_read(tmp_path, place, folder, words):
    make_lists(tmp_path / place, folder)
    query, gallery, source = read_msmt17(tmp_path)
    assert words in source
    assert query.paths == [str(tmp_path / place / folder / name) for name in QUERY]
    assert query.ids.tolist() == [0, 1] and query.cameras.tolist() == [5, 15]
    assert gallery.ids.tolist() == [1, 0] and gallery.cameras.tolist() == [2, 15]


def test_market_style_folders_with_cameras_of_two_digits(tmp_path):
    make_folders(tmp_path / "MSMT17_V1")
    (tmp_path / "MSMT17_V1" / "query" / "._0003_c15_0002.jpg").write_bytes(b"macOS metadata")
    query, gallery, source = read_msmt17(tmp_path)
    assert "Market-1501 layout" in source
    assert (query.ids.tolist(), query.cameras.tolist()) == ([3], [15])
    assert (gallery.ids.tolist(), gallery.cameras.tolist()) == ([0, 3], [10, 2])


def test_a_missing_listed_image_is_reported(tmp_path):
    make_lists(tmp_path)
    missing = list(GALLERY)[1]
    (tmp_path / "test" / missing).unlink()
    with pytest.raises(ValueError, match=rf"list_gallery\.txt: 1 of its 2 images are not in .*test; .* {missing}"):
        read_msmt17(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0000/0000_000_01_0303morning_0008_0.jpg", r"list_query\.txt, line 3: .* is not a path and an identity"),
        ("0000/person.jpg 3", r"line 3: '0000/person\.jpg 3' is not"),
        ("0000/0000_000_xx_0303morning_0008_0.jpg 3", "line 3: .*camera as third number"),
        (f"{next(iter(QUERY))} 0", "line 3: .* is listed a second time"),
    ],
)
def test_a_malformed_line_is_reported(tmp_path, line, message):
    make_lists(tmp_path)
    with open(tmp_path / "list_query.txt", "a") as file:
        file.write(line)
    with pytest.raises(ValueError, match=message):
        read_msmt17(tmp_path)


def test_missing_or_ambiguous_copies_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no MSMT17 in any of .*MSMT17_V2.*list_query\.txt.*bounding_box_test"):
        read_msmt17(tmp_path)
    make_lists(tmp_path / "MSMT17_V1")
    (tmp_path / "MSMT17_V1" / "list_gallery.txt").rename(tmp_path / "MSMT17_V1" / "gallery.txt")
    with pytest.raises(ValueError, match=r"list_gallery\.txt: no such list"):
        read_msmt17(tmp_path)
    (tmp_path / "MSMT17_V1" / "list_gallery.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"list_gallery\.txt: the list is empty"):
        read_msmt17(tmp_path)
    (tmp_path / "MSMT17_V1" / "mask_test_v2").mkdir()
    with pytest.raises(ValueError, match=r"one of the image folders test, mask_test_v2 beside the lists, found 2"):
        read_msmt17(tmp_path)
    make_lists(tmp_path / "MSMT17_V2", "mask_test_v2")
    with pytest.raises(ValueError, match=r"2 copies of MSMT17: .*MSMT17_V1, .*MSMT17_V2; .*give the folder of one"):
        read_msmt17(tmp_path)
