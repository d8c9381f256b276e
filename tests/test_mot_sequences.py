"""MOTChallenge sequences with frames or videos: crops, their pixels, and errors."""

import av
import numpy as np
import pytest
from PIL import Image

from cion_jax.samples import load_image, read_samples, write_samples
from cion_jax.samples.readers import read_dataset
from tests.image_folders import rows

HEIGHT, WIDTH = 30, 40


def picture(frame):
    """A frame whose pixels encode their position and the frame number."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([rows * 8, columns * 6, np.full_like(rows, 20 * frame)], axis=2).astype(np.uint8)


def write_sequence(root, name, frames=3, length=None, **texts):
    """Writes a sequence; `texts` are the contents of gt.txt and det.txt."""
    (root / name / "img1").mkdir(parents=True)
    for frame in range(1, frames + 1):
        Image.fromarray(picture(frame)).save(root / name / "img1" / f"{frame:06d}.jpg", quality=100, subsampling=0)
    info = f"name={name}\nimDir=img1\nframeRate=30\nseqLength={length or frames}\nimWidth=40\nimHeight=30\nimExt=.jpg\n"
    (root / name / "seqinfo.ini").write_text(f"[Sequence]\n{info}")
    for kind, text in texts.items():
        (root / name / kind).mkdir()
        (root / name / kind / f"{kind}.txt").write_text(text)
    return root


def read(root, tracks, crops):
    return read_dataset("mot", root, tracks=str(tracks), crops=str(crops))


GT = """1,1,10,4,8,20,1,1,1
2,1,12.4,4.6,8,20,1,1,1
2,2,-5,-5,15,20,1,1,1
3,2,35,20,30,30,1,1,1
3,9,50,0,5,5,1,1,1
1,3,0,0,9,9,0,1,1
"""


def test_crops_of_the_ground_truth(tmp_path):
    root = write_sequence(tmp_path / "train", "MOT20-01", gt=GT)
    reading = read(root, "gt", tmp_path / "crops")
    assert rows(reading) == [
        {"file_path": f"MOT20-01/{track:06d}/{frame:06d}.jpg", "video": "MOT20-01", "tracklet": track, "frame": frame}
        for frame, track in ((1, 1), (2, 1), (2, 2), (3, 2))
    ]
    assert reading.left_out == {"boxes flagged as not to be counted": 1, "boxes outside their frame": 1}
    # All pixels that a box touches, clipped to the frame.
    expected = [picture(1)[4:24, 10:18], picture(2)[4:25, 12:21], picture(2)[:15, :10], picture(3)[20:, 35:]]
    for path, part in zip(reading.samples["file_path"], expected, strict=True):
        crop = load_image(tmp_path / "crops" / path).astype(int)
        assert crop.shape == part.shape
        assert np.abs(crop - part).max() < 24  # JPEG


DET = """2,-1,1,1,5,9,0.9,-1,-1,-1
1,-1,1,1,5,9,0.9,-1,-1,-1
2,-1,9,1,5,9,-3,-1,-1,-1
"""


def test_crops_of_detections_have_no_tracklet(tmp_path):
    root = write_sequence(tmp_path, "a", det=DET)
    reading = read(root / "a", "det", tmp_path / "crops")
    assert [(row["file_path"], row["frame"]) for row in rows(reading)] == [
        ("a/000002_000.jpg", 2),
        ("a/000001_000.jpg", 1),
        ("a/000002_001.jpg", 2),
    ]
    assert "tracklet" not in reading.samples.columns


def test_results_of_a_tracker_are_read(tmp_path):
    root = write_sequence(tmp_path / "data", "a")
    write_sequence(root, "b")
    results = tmp_path / "results"
    results.mkdir()
    (results / "a.txt").write_text("1,4,1.5,1,5,9,0.9,-1,-1,-1\n")
    with pytest.raises(ValueError, match=r"b\.txt: no such file of boxes"):
        read(root, results, tmp_path / "crops")
    assert list((tmp_path / "crops").rglob("*.jpg")) == [
        tmp_path / "crops/a/000004/000001.jpg"
    ]  # finished sequences are kept
    (results / "b.txt").write_text("3,4,1.5,1,5,9\n")
    table = read(root, results, tmp_path / "crops").samples
    assert list(zip(table["video"], table["tracklet"], table["frame"])) == [("a", 4, 1), ("b", 4, 3)]
    write_samples(table, tmp_path / "s.parquet")
    assert read_samples(tmp_path / "s.parquet").arrow.equals(table.arrow)


def test_a_results_file_belongs_to_one_sequence(tmp_path):
    root = write_sequence(tmp_path / "data", "a")
    results = tmp_path / "a.txt"
    results.write_text("1,4,1.5,1,5,9,0.9,-1,-1,-1\n")
    assert read(root, results, tmp_path / "crops").samples["video"].tolist() == ["a"]
    write_sequence(root, "b")
    with pytest.raises(ValueError, match=r"a\.txt: one file for the 2 sequences in .*data; give a folder .* a\.txt"):
        read(root, results, tmp_path / "crops")


@pytest.mark.parametrize("tracks", ["det", "results"])
def test_an_empty_file_means_no_detections(tmp_path, tracks):
    root = write_sequence(tmp_path / "data", "a", det="")
    write_sequence(root, "b", det="1,-1,1,1,5,9,0.9\n")
    (tmp_path / "results").mkdir()
    (tmp_path / "results/a.txt").touch()
    (tmp_path / "results/b.txt").write_text("1,4,1,1,5,9,0.9\n")
    given = "det" if tracks == "det" else tmp_path / "results"
    reading = read(root, given, tmp_path / "crops")
    assert reading.samples["video"].tolist() == ["b"]
    assert reading.left_out == {"sequences in which nobody was found (their file is empty)": 1}
    (root / "b/det/det.txt").write_text("")
    (tmp_path / "results/b.txt").write_text("")
    with pytest.raises(ValueError, match="nobody was found in any of 2 sequences"):
        read(root, given, tmp_path / "crops")


@pytest.mark.parametrize("tracks", ["gt", "results"])
def test_tracks_without_ids_are_detections(tmp_path, tracks):
    root = write_sequence(tmp_path / "data", "a", gt="1,4,1,1,5,9,1,1,1\n")
    write_sequence(root, "b", gt="1,-1,1,1,5,9,1,1,1\n")
    (tmp_path / "results").mkdir()
    (tmp_path / "results/a.txt").write_text("1,4,1,1,5,9,0.9\n")
    (tmp_path / "results/b.txt").write_text("1,-1,1,1,5,9,0.9\n")
    with pytest.raises(ValueError, match=r"(gt|b)\.txt: boxes without tracklets \(id -1\); .* --tracks=det"):
        read(root, "gt" if tracks == "gt" else tmp_path / "results", tmp_path / "crops")


def test_detections_with_ids_have_no_tracklet_either(tmp_path):
    root = write_sequence(tmp_path / "data", "a", det="1,1,1,1,5,9,0.9\n2,2,1,1,5,9,0.9\n")
    write_sequence(root, "b", det="1,-1,1,1,5,9,0.9\n")
    assert "tracklet" not in read(root, "det", tmp_path / "crops").samples.columns


def test_frames_count_from_1(tmp_path):
    root = write_sequence(tmp_path / "data", "a", gt="1,4,1,1,5,9,1,1,1\n")
    for number in (1, 2, 3):
        (root / f"a/img1/{number:06d}.jpg").rename(root / f"a/img1/{number - 1:06d}.jpg")
    with pytest.raises(ValueError, match=r"img1: frames numbered from 0; .* count from 1"):
        read(root, "gt", tmp_path / "crops")


@pytest.mark.parametrize("named_from", [0, 1])
def test_boxes_and_frames_may_count_from_0(tmp_path, named_from):
    root = write_sequence(tmp_path / "data", "a", gt="0,4,10,4,8,20,1,1,1\n2,4,10,4,8,20,1,1,1\n")
    for number in (1, 2, 3):
        (root / f"a/img1/{number:06d}.jpg").rename(root / f"a/img1/{number - 1 + named_from:06d}.jpg")
    table = read_dataset("mot", root, tracks="gt", crops=str(tmp_path / "crops"), first_frame=0).samples
    assert table["frame"].tolist() == [1, 3]
    for path, frame in zip(table["file_path"], (1, 3)):
        crop = load_image(tmp_path / "crops" / path).astype(int)
        assert np.abs(crop - picture(frame)[4:24, 10:18]).max() < 24  # JPEG


def test_classes_of_a_tracker_are_chosen(tmp_path):
    root = write_sequence(tmp_path / "data", "a")
    (tmp_path / "a.txt").write_text("1,4,10,4,8,20,0.9,0\n1,5,10,4,8,20,0.9,2\n")
    with pytest.raises(ValueError, match=r"a\.txt: .*--classes="):
        read(root, tmp_path / "a.txt", tmp_path / "crops")
    reading = read_dataset("mot", root, tracks=str(tmp_path / "a.txt"), crops=str(tmp_path / "crops"), classes=[0])
    assert reading.samples["tracklet"].tolist() == [4]
    assert reading.left_out == {"boxes of other classes than people": 1}


def test_hidden_files_are_no_sequences(tmp_path):
    root = write_sequence(tmp_path / "data", "a", gt="1,4,1,1,5,9,1,1,1\n")
    (root / "._a.mp4").write_bytes(b"what macOS keeps of a file")
    assert read(root, "gt", tmp_path / "crops").samples["video"].tolist() == ["a"]


def test_only_what_changed_is_cut_again(tmp_path):
    root = write_sequence(tmp_path / "data", "a", gt="1,1,10,4,8,20,1,1,1\n")
    crop = tmp_path / "crops/a/000001/000001.jpg"
    read(root, "gt", tmp_path / "crops")
    before = crop.stat().st_mtime_ns
    read(root, "gt", tmp_path / "crops")
    assert crop.stat().st_mtime_ns == before
    (root / "a/gt/gt.txt").write_text("1,2,10,4,6,20,1,1,1\n")
    read(root, "gt", tmp_path / "crops")
    assert not crop.exists() and load_image(tmp_path / "crops/a/000002/000001.jpg").shape == (20, 6, 3)


def test_only_crops_are_ever_replaced(tmp_path):
    root = write_sequence(tmp_path / "data", "a", gt="1,1,10,4,8,20,1,1,1\n")
    with pytest.raises(ValueError, match=r"data/a is there already and was not made by this reader"):
        read(root, "gt", root)
    assert (root / "a/img1/000001.jpg").exists()


def test_mot17_sequences_are_read_once(tmp_path):
    for detector in ("DPM", "FRCNN", "SDP"):
        write_sequence(tmp_path / "train", f"MOT17-02-{detector}", gt="1,1,10,4,8,20,1,1,1\n", det="1,-1,0,0,9,9,1\n")
    truth = read(tmp_path / "train", "gt", tmp_path / "crops")
    assert truth.samples["video"].tolist() == ["MOT17-02-DPM"]
    assert truth.left_out == {"sequences with the ground truth of another (MOT17's detectors)": 2}
    assert len(read(tmp_path / "train", "det", tmp_path / "detected").samples) == 3


def test_videos_are_listed(tmp_path):
    (tmp_path / "videos").mkdir()
    with av.open(str(tmp_path / "videos" / "street.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(1, 13):
            image = np.full((48, 64, 3), 20 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    (tmp_path / "street.txt").write_text("1,7,4,4,20,30,1,-1,-1,-1\n9,7,50,4,20,30,1,-1,-1,-1\n")
    table = read(tmp_path / "videos", tmp_path / "street.txt", tmp_path / "crops").samples
    first, last = (load_image(tmp_path / "crops" / path) for path in table["file_path"])
    assert first.shape == (30, 20, 3) and last.shape == (30, 14, 3)
    assert abs(first.mean() - 20) < 6 and abs(last.mean() - 180) < 6


def rewritten(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def renamed(folder, names):
    for old, new in names.items():
        (folder / old).rename(folder / new)


@pytest.mark.parametrize("form", ["{:d}.jpg", "frame_{:06d}.jpg", "img{:05d}.jpg", "2024-05-01_cam1 {:04d}.jpg"])
def test_names_of_frames_end_in_their_number(tmp_path, form):
    root = write_sequence(tmp_path / "data", "a", frames=11, gt="".join(f"{n},1,5,4,8,20,1,1,1\n" for n in (2, 10)))
    renamed(root / "a/img1", {f"{frame:06d}.jpg": form.format(frame) for frame in range(1, 12)})
    table = read(root, "gt", tmp_path / "crops").samples
    for path, frame in zip(table["file_path"], (2, 10), strict=True):
        crop = load_image(tmp_path / "crops" / path).astype(int)
        assert np.abs(crop - picture(frame)[4:24, 5:13]).max() < 24


def test_files_beside_frames_are_left_out_and_counted(tmp_path):
    root = write_sequence(tmp_path / "data", "a", gt="1,1,10,4,8,20,1,1,1\n")
    for name in ("000001.txt", "000002.txt", "000001.json", "Thumbs.db", "README", ".000001.jpg"):
        (root / "a/img1" / name).write_bytes(b"0 0.5 0.5 0.1 0.1")
    Image.new("RGB", (9, 9)).save(root / "a/img1/cover.png")
    reading = read(root, "gt", tmp_path / "crops")
    assert len(reading.samples) == 1
    assert reading.left_out == {
        "files beside the frames that are no images (.txt)": 2,
        "files beside the frames that are no images (.json)": 1,
        "files beside the frames that are no images (.db)": 1,
        "files beside the frames that are no images (without extension)": 1,
        "images beside the frames without a number at the end of their name": 1,
    }


def test_frames_of_mixed_formats_are_one_sequence(tmp_path):
    root = write_sequence(tmp_path / "data", "a", gt="".join(f"{n},1,5,4,8,20,1,1,1\n" for n in (1, 2, 3)))
    for frame, ending in ((2, ".png"), (3, ".BMP")):
        (root / f"a/img1/{frame:06d}.jpg").unlink()
        Image.fromarray(picture(frame)).save(root / f"a/img1/{frame:06d}{ending}")
    for path, frame in zip(read(root, "gt", tmp_path / "crops").samples["file_path"], (1, 2, 3), strict=True):
        assert np.abs(load_image(tmp_path / "crops" / path).astype(int) - picture(frame)[4:24, 5:13]).max() < 24


def test_boxes_are_in_pixels_of_the_displayed_frames(tmp_path):
    """Frames that a phone stored on their side."""
    root = write_sequence(tmp_path / "data", "a", frames=1, gt="1,1,10,4,8,20,1,1,1\n")
    exif = Image.Exif()
    exif[0x0112] = 6  # stored pixels are turned clockwise to be displayed
    stored = Image.fromarray(np.rot90(picture(1)))
    stored.save(root / "a/img1/000001.jpg", quality=100, subsampling=0, exif=exif)
    (path,) = read(root, "gt", tmp_path / "crops").samples["file_path"]
    assert np.abs(load_image(tmp_path / "crops" / path).astype(int) - picture(1)[4:24, 10:18]).max() < 24


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / "a/img1/000002.jpg").unlink(), r"img1: 2 frames, expected 3"),
        (lambda root: (root / "a/img1/000002.jpg").write_bytes(b"x"), r"sequence a: .*000002\.jpg: not an image"),
        (
            lambda root: (root / "a/gt/gt.txt").write_text("7,1,1,1,5,5,1,1,1\n"),
            "sequence a: 1 frames .* frame 7",
        ),
        (lambda root: (root / "a/gt/gt.txt").unlink(), r"gt\.txt: no such file of boxes"),
        (
            lambda root: (root / "a/seqinfo.ini").write_text("name=a\n"),
            r"seqinfo\.ini: expected a sec",
        ),
        (
            lambda root: (root / "a/seqinfo.ini").write_text("[Sequence]\nseqLength=x\n"),
            r"seqinfo\.ini: expected a sec",
        ),
        (
            lambda root: (
                renamed(root / "a", {"seqinfo.ini": "SEQINFO"})
                or Image.new("RGB", (9, 9)).save(root / "a/img1/000002.jpg")
            ),
            r"sequence a: .*000002\.jpg: 9x9 pixels, but 000001\.jpg has 40x30, .* another scale; give the frames",
        ),
        (
            lambda root: rewritten(root / "a/seqinfo.ini", "imWidth=40\nimHeight=30", "imWidth=80\nimHeight=60"),
            r"sequence a: .*0000\d\d\.jpg: 40x30 pixels, but seqinfo\.ini says 80x60, so boxes are in another scale",
        ),
        (
            lambda root: rewritten(root / "a/seqinfo.ini", "imHeight=30", ""),
            r"seqinfo\.ini: .*imWidth and imHeight without the other",
        ),
        (
            lambda root: Image.new("RGB", (40, 30)).save(root / "a/img1/1.jpg"),
            r"img1: 000001\.jpg and 1\.jpg are both frame 1; remove one",
        ),
        (
            lambda root: Image.new("RGB", (40, 30)).save(root / "a/img1/000003.png"),
            r"img1: 000003\.jpg and 000003\.png are both frame 3",
        ),
        (
            lambda root: Image.new("RGB", (40, 30)).save(root / "a/img1/other_000004.jpg"),
            r"img1: '000001' and 'other_000004' differ before the frame number, .* two videos",
        ),
        (
            lambda root: renamed(root / "a/img1", {f"{n:06d}.jpg": f"{n}_{'abc'[n - 1]}.jpg" for n in (1, 2, 3)}),
            r"img1: no frames; expected images whose names end in the frame number",
        ),
        (
            lambda root: (root / "a/gt/gt.txt").write_text("1,1,0,0,9,9\n2,1,40,16,32,80\n3,1,9,30,32,80\n"),
            "sequence a: 2 of 3 boxes lie outside their frames; .* larger frames, give those",
        ),
        (lambda root: (root / "a").rename(root.parent / "elsewhere"), "data: no sequence, a folder with img1/"),
        (lambda root: (root / "a.mp4").write_bytes(b"x"), "sequence a is there twice"),
    ],
)
def test_bad_sequences(tmp_path, change, message):
    root = write_sequence(tmp_path / "data", "a", gt="1,1,10,4,8,20,1,1,1\n2,1,10,4,8,20,1,1,1\n")
    change(root)
    with pytest.raises(ValueError, match=message):
        read(root, "gt", tmp_path / "crops")
    assert not list((tmp_path / "crops").rglob("*.jpg"))
