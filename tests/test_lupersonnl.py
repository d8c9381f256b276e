"""LUPerson-NL in each form written by its tools: LMDB with keys, loose crops, detections with videos."""

import pickle
import pickletools

import av
import lmdb
import numpy as np
import pytest

from cion_jax.distillation.loader import load_batches
from cion_jax.distillation.sampler import IdentitySampler
from cion_jax.distillation.schedules import make_curriculum
from cion_jax.samples import UndecodableImage, check_images, load_image, open_images, read_samples
from cion_jax.samples.ingest.decoding import BrokenVideo, Frame, read_frames
from cion_jax.samples.readers import lupersonnl, read_dataset
from cion_jax.samples.readers.pickles import read_pickle
from cion_jax.samples.stores.packed import pack
from tests.image_folders import make, rows

CROPS = [
    "china/beijing/dQw4w9WgXcQ/000012_0000250_00.jpg",
    "china/beijing/dQw4w9WgXcQ/000012_0000275_01.jpg",
    "usa/new-york/-Ab_cd3fGhI/000345_0000000_11.jpg",
]
KEYS = ["00001_000012_0000250_00", "00001_000012_0000275_01", "00002_000345_0000000_11"]


@pytest.fixture
def crops(tmp_path):
    return make(tmp_path / "lup-nl", *CROPS)


def write_lmdb(root, crops, **index):
    """Writes an LMDB in the format of LUPerson-NL's convert_lmdb.py."""
    (root / "lmdb").mkdir(parents=True)
    with lmdb.open(str(root / "lmdb"), map_size=2**30) as environment, environment.begin(write=True) as transaction:
        for key, path in zip(KEYS, CROPS):
            transaction.put(key.encode("ascii"), np.frombuffer((crops / path).read_bytes(), np.uint8))
    index = {"keys": KEYS, "pids": [12, 12, 345]} | index
    (root / "keys.pkl").write_bytes(pickle.dumps({name: value for name, value in index.items() if value is not None}))
    return root


# --- loose crops


def test_loose_crops(crops):
    assert rows(read_dataset("lupersonnl", crops)) == [
        {"file_path": CROPS[0], "video": "china+beijing+dQw4w9WgXcQ", "tracklet": 12, "frame": 250},
        {"file_path": CROPS[1], "video": "china+beijing+dQw4w9WgXcQ", "tracklet": 12, "frame": 275},
        {"file_path": CROPS[2], "video": "usa+new-york+-Ab_cd3fGhI", "tracklet": 345, "frame": 0},
    ]


def test_crops_with_unknown_names_are_refused(crops):
    make(crops, "china/beijing/dQw4w9WgXcQ/12_250_0.jpg", "000012_0000250_00.jpg")
    with pytest.raises(ValueError, match=r"2 of 5 names are not <country>/<city>/<id>/<pid>_<frame>_<object>\.jpg"):
        read_dataset("lupersonnl", crops)
    with pytest.raises(ValueError, match="--crops is for dets/ and videos/ in it"):
        read_dataset("lupersonnl", crops, crops="x")


# --- LMDB


def test_an_lmdb_is_read(crops, tmp_path):
    root = write_lmdb(tmp_path / "lupnl_lmdb", crops)
    table = read_dataset("lupersonnl", root).samples
    assert table.arrow.to_pylist() == [
        {"file_path": KEYS[0], "video": "00001", "tracklet": 12, "frame": 250},
        {"file_path": KEYS[1], "video": "00001", "tracklet": 12, "frame": 275},
        {"file_path": KEYS[2], "video": "00002", "tracklet": 345, "frame": 0},
    ]
    assert rows(read_dataset("lupersonnl", root / "lmdb")) == table.arrow.to_pylist()


def test_the_images_of_an_lmdb(crops, tmp_path):
    root = write_lmdb(tmp_path / "lupnl_lmdb", crops)
    images, again = open_images(root), open_images(root / "lmdb")  # LMDB itself allows only one at a time
    for key, path in zip(KEYS, CROPS):
        np.testing.assert_array_equal(images.load(key), load_image(crops / path))
        assert again.read(key) == (crops / path).read_bytes()
    asked = [KEYS[1], "00009_000012_0000275_01", "", "x" * 1000]
    assert images.missing(asked).tolist() == [False, True, True, True]
    for absent in asked[1:]:
        with pytest.raises(UndecodableImage, match=r"no such key in|cannot be read from"):
            images.load(absent)
    table = read_dataset("lupersonnl", root).samples
    check_images(table, root)
    with pytest.raises(ValueError, match=r"1 of 3 images are not under the image root .*row 2: 'x'"):
        check_images(table.with_columns(file_path=[*KEYS[:2], "x"]), root)


def test_training_reads_an_lmdb_as_it_reads_a_folder(crops, tmp_path):
    root = write_lmdb(tmp_path / "lupnl_lmdb", crops)
    plan = make_curriculum(np.array([3]), batch_size=2, epochs=4, stage_epochs=(0,), images_per_identity=(2,))
    sampler = IdentitySampler(np.zeros(3, np.int64), plan, batch_size=2, seed=0)
    sources = [(CROPS, crops), (KEYS, root)]
    batches = [list(load_batches(sampler, *source, canvas=(8, 4), threads=2)) for source in sources]
    assert len(batches[0]) > 1
    for ours, theirs in zip(*batches, strict=True):
        np.testing.assert_array_equal(ours.images, theirs.images)


def test_an_lmdb_is_packed_like_a_folder(crops, tmp_path):
    root = write_lmdb(tmp_path / "lupnl_lmdb", crops)
    pack(KEYS, open_images(root).read, tmp_path / "store")
    packed = open_images(tmp_path / "store")
    assert [packed.read(key) for key in KEYS] == [(crops / path).read_bytes() for path in CROPS]
    with pytest.raises(ValueError, match=r"an LMDB, not a folder of images; python -m cion_jax\.samples\.read"):
        read_samples(root)


@pytest.mark.parametrize("cut", [0, 100, 5000, 9000])
def test_an_lmdb_that_is_cut_off(crops, tmp_path, cut):
    """Reading beyond the end would kill the process instead of raising."""
    root = write_lmdb(tmp_path / "lupnl_lmdb", crops)
    data = root / "lmdb" / "data.mdb"
    data.write_bytes(data.read_bytes()[:cut])
    with pytest.raises(ValueError, match=r"lmdb(/data\.mdb)? (cannot be opened as an LMDB|is cut off: \d+ bytes)"):
        read_dataset("lupersonnl", root)


def test_an_lmdb_that_is_a_pointer_is_named(tmp_path):
    (tmp_path / "data.mdb").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 9\n")
    with pytest.raises(ValueError, match=r"cannot be opened as an LMDB .*; the file is a git-lfs pointer, .*lfs pull"):
        open_images(tmp_path)


def test_a_missing_package_is_named(crops, tmp_path, monkeypatch):
    root = write_lmdb(tmp_path / "lupnl_lmdb", crops)
    monkeypatch.setitem(__import__("sys").modules, "lmdb", None)
    with pytest.raises(ValueError, match="is an LMDB; pip install lmdb"):
        open_images(root)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"keys": [*KEYS, "00003_000346_0000001_00"], "pids": None}, r"1 of 4 keys .* not in the LMDB: '00003_000346"),
        ({"keys": ["12_34", *KEYS[1:]]}, r"1 of 3 names are not <video>_<pid>_<frame>_<object>: '12_34'"),
        ({"keys": [*KEYS[:2], KEYS[1]], "pids": [12, 12, 12]}, "file_path appears more than once in 2 of 3 rows"),
        ({"keys": [*KEYS[:2], 5]}, "expected a dictionary of keys, a list of text"),
        ({"keys": None}, "expected a dictionary of keys"),
        ({"pids": [12, 12]}, "its 2 pids are not those in its 3 keys"),
        ({"pids": [12, 345, 12]}, "its 3 pids are not those in its 3 keys"),
        ({"pids": ["a", "b", "c"]}, "expected a dictionary of keys"),
    ],
)
def test_bad_lists_of_keys(crops, tmp_path, index, message):
    root = write_lmdb(tmp_path / "lupnl_lmdb", crops, **index)
    with pytest.raises(ValueError, match=message):
        read_dataset("lupersonnl", root)


def test_a_missing_or_truncated_list_of_keys(crops, tmp_path):
    root = write_lmdb(tmp_path / "lupnl_lmdb", crops)
    content = (root / "keys.pkl").read_bytes()
    (root / "keys.pkl").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"keys\.pkl: not a pickle, or a damaged one"):
        read_dataset("lupersonnl", root)
    (root / "keys.pkl").unlink()
    with pytest.raises(ValueError, match=r"keys\.pkl: no such file"):
        read_dataset("lupersonnl", root)


# --- pickles


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_and_arrays_of_any_protocol(tmp_path, protocol):
    box = np.array([[1.5, -2, 3e9, 4]])
    value = {"a": [(1, {"bbox": box, "pid": np.int64(7)})], b"b": [2.5, None, True], "c": box.T, "d": box.astype(">f4")}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(value, protocol=protocol))
    content = read_pickle(tmp_path / "x.pkl")
    assert content["a"][0][0] == 1 and content["a"][0][1]["pid"] == 7 and content[b"b"] == [2.5, None, True]
    for ours, theirs in ((content["a"][0][1]["bbox"], box), (content["c"], box.T), (content["d"], box)):
        np.testing.assert_array_equal(np.asarray(ours), theirs)


def test_names_of_numpy_1_are_known(tmp_path):
    """The published pickles predate NumPy 2, which renamed its modules."""
    new = pickle.dumps([np.arange(3.0), np.float32(2)], protocol=2)
    old = new.replace(b"numpy._core.", b"numpy.core.")
    assert old != new
    (tmp_path / "x.pkl").write_bytes(old)
    array, number = read_pickle(tmp_path / "x.pkl")
    assert np.asarray(array).tolist() == [0, 1, 2] and number == 2


class Runs:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "content",
    [
        {"keys": [], "pids": Runs(print, "run")},
        Runs(__import__("os").system, "echo run"),
        Runs(eval, "print('run')"),
        Runs(getattr, "x", "upper"),
        np.array([Runs(print, "run")], object),
    ],
)
def test_pickles_that_hold_code_are_refused_and_nothing_runs(tmp_path, capfd, content):
    data = pickle.dumps(content)
    assert any(op.name in ("STACK_GLOBAL", "GLOBAL") for op, _, _ in pickletools.genops(data))
    (tmp_path / "keys.pkl").write_bytes(data)
    with pytest.raises(ValueError, match=r"keys\.pkl: (refused, it asks for|not a pickle.*expected numbers)"):
        read_pickle(tmp_path / "keys.pkl")
    assert "run" not in capfd.readouterr().out


@pytest.mark.parametrize(
    "data", [b"", b"\x80\x04", b"no pickle", b"cnumpy\nndarray\n.", b"\x80\x04K\x01K\x02", b"N}b."]
)
def test_bytes_that_are_no_pickle(tmp_path, data):
    (tmp_path / "x.pkl").write_bytes(data)
    try:
        read_pickle(tmp_path / "x.pkl")
    except ValueError as error:
        assert "x.pkl: not a pickle, or a damaged one" in str(error)


# --- detections and videos


@pytest.fixture
def videos(tmp_path):
    """A video of 12 frames whose left half encodes the frame number as grey level, and its detections."""
    root = tmp_path / "raw"
    (root / "dets").mkdir(parents=True)
    path = root / "videos" / "uk" / "york" / "uk+york+AbC-_1.mp4"
    path.parent.mkdir(parents=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(12):
            image = np.zeros((48, 64, 3), np.uint8)
            image[:, :32] = 20 * number
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    detections = {
        3: [(0, {"bbox": np.array([2.4, -3.0, 20.6, 40.2]), "pid": 17})],
        11: [
            (0, {"bbox": np.array([40.0, 5, 90, 30]), "pid": 17}),
            (2, {"bbox": np.array([70.0, 0, 80, 9]), "pid": 18}),
        ],
    }
    (root / "dets" / "uk+york+AbC-_1.pkl").write_bytes(pickle.dumps(detections))
    (root / "dets" / "uk+york+gone.pkl").write_bytes(pickle.dumps(detections))
    return root


def test_crops_of_detections_and_videos(videos, tmp_path):
    out = tmp_path / "crops"
    for _ in range(2):  # the second call finds the crops of the first
        reading = read_dataset("lupersonnl", videos, crops=str(out))
        assert rows(reading) == [
            {"file_path": f"uk/york/AbC-_1/{name}.jpg", "video": "uk+york+AbC-_1", "tracklet": 17, "frame": frame}
            for name, frame in (("000017_0000003_00", 3), ("000017_0000011_00", 11))
        ]
        assert reading.left_out == {"boxes outside their frame": 1, "videos that are not there": 1}
    first, second = (load_image(out / path) for path in reading.samples["file_path"])
    assert first.shape == (40, 19, 3) and second.shape == (25, 24, 3)  # rounded, and clipped to the frame
    assert abs(first.mean() - 60) < 6 and second.mean() < 6  # frames count from 0


def person(pid=17, box=(0, 0, 9, 30)):
    return {"bbox": np.array(box, float), "pid": pid}


@pytest.mark.parametrize(
    "wrong",
    [
        [(0, person(pid=-1))],
        [(-1, person())],
        [(0, person()), (0, person())],
        [(0, {"bbox": np.arange(4.0), "pid": "17"})],
    ],
)
def test_detections_are_all_checked_before_the_first_is_cut(videos, tmp_path, wrong):
    (videos / "dets" / "uk+york+last.pkl").write_bytes(pickle.dumps({3: wrong}))
    with pytest.raises(ValueError, match=r"uk\+york\+last\.pkl: expected \{frame: \["):
        read_dataset("lupersonnl", videos, crops=str(tmp_path / "crops"))
    assert not (tmp_path / "crops").exists()


def test_videos_of_another_size_than_their_boxes_are_left_out(videos, tmp_path, capsys):
    """Downloaded in a lower resolution than the boxes were made on."""
    places = ((0, 0, 9, 30), (90, 30, 120, 90), (0, 60, 9, 90))
    boxes = {frame: [(0, person(box=box))] for frame, box in enumerate(places, 3)}
    (videos / "dets/uk+york+low.pkl").write_bytes(pickle.dumps(boxes))
    folder = videos / "videos/uk/york"
    (folder / "uk+york+low.mp4").write_bytes((folder / "uk+york+AbC-_1.mp4").read_bytes())
    reading = read_dataset("lupersonnl", videos, crops=str(tmp_path / "crops"))
    assert set(reading.samples["video"]) == {"uk+york+AbC-_1"}
    assert reading.left_out["videos of another size than that of their boxes"] == 1
    assert "low.mp4: left out, 2 of 3 boxes lie outside" in capsys.readouterr().err


def test_frames_that_cannot_be_read_are_skipped_as_published(videos, tmp_path, capsys):
    """As in the published tools; after a decoding error, the crops of earlier frames are kept."""
    detections = {3: [(0, person())], 11: [(0, person())], 12: [(0, person()), (1, person())], 500: [(0, person())]}
    (videos / "dets" / "uk+york+AbC-_1.pkl").write_bytes(pickle.dumps(detections))
    (videos / "dets" / "uk+york+gone.pkl").unlink()
    for _ in range(2):  # the second call finds the crops of the first
        reading = read_dataset("lupersonnl", videos, crops=str(tmp_path / "crops"))
        assert reading.samples["frame"].tolist() == [3, 11]
        assert reading.left_out == {"boxes of frames that cannot be read": 3}
        assert "AbC-_1.mp4: 3 boxes are left out, 2 of its frames cannot be read" in capsys.readouterr().err


def test_a_video_that_breaks_off_keeps_the_crops_before(videos, tmp_path, capsys, monkeypatch):
    def breaks_off(path):
        for frame in read_frames(path):
            if frame.number == 12:  # frame 11 in the detections, which count from 0
                raise BrokenVideo("frame 12 cannot be decoded (damaged)")
            yield frame

    monkeypatch.setattr(lupersonnl, "read_frames", breaks_off)
    reading = read_dataset("lupersonnl", videos, crops=str(tmp_path / "crops"))
    assert reading.samples["frame"].tolist() == [3]
    assert reading.left_out == {"boxes of frames that cannot be read": 2, "videos that are not there": 1}
    assert "AbC-_1.mp4: frame 12 cannot be decoded (damaged); what is before" in capsys.readouterr().err


def test_a_frame_that_cannot_be_converted_is_skipped(videos, tmp_path, monkeypatch):
    def broken():
        raise BrokenVideo("a frame cannot be converted to RGB")

    def frames(path):
        return (Frame(number, broken if number == 4 else image) for number, image in read_frames(path))

    monkeypatch.setattr(lupersonnl, "read_frames", frames)
    reading = read_dataset("lupersonnl", videos, crops=str(tmp_path / "crops"))
    assert reading.samples["frame"].tolist() == [11]
    assert reading.left_out["boxes of frames that cannot be read"] == 1


def test_the_table_is_of_the_detections_not_of_what_else_is_in_the_folder_of_crops(videos, tmp_path):
    """Crops of earlier calls count even if the video is gone; other files in the folder do not."""
    crops = make(tmp_path / "crops", "uk/york/else/000001_0000000_00.jpg", "note.jpg")
    (videos / "dets" / "._uk+york+AbC-_1.pkl").write_bytes(b"macOS metadata")
    before = read_dataset("lupersonnl", videos, crops=str(crops))
    assert set(before.samples["video"]) == {"uk+york+AbC-_1"}
    make(crops, "uk/york/AbC-_1/000099_0000000_00.jpg")
    (videos / "videos/uk/york/uk+york+AbC-_1.mp4").unlink()
    assert rows(read_dataset("lupersonnl", videos, crops=str(crops))) == rows(before)


def test_bad_detections(videos, tmp_path):
    with pytest.raises(ValueError, match="has dets/ and videos/, give the folder of crops to write with --crops"):
        read_dataset("lupersonnl", videos)
    file = videos / "dets" / "uk+york+AbC-_1.pkl"
    for content in ({3: [(0, {"bbox": np.zeros(3), "pid": 1})]}, {3: [(0, {"pid": 1})]}, [1], {"3": [(0, {})]}):
        file.write_bytes(pickle.dumps(content))
        with pytest.raises(ValueError, match=r"uk\+york\+AbC-_1\.pkl: expected \{frame: \["):
            read_dataset("lupersonnl", videos, crops=str(tmp_path / "crops"))
    file.write_bytes(pickle.dumps({500: [(0, {"bbox": np.arange(4.0), "pid": 1})]}))
    with pytest.raises(
        ValueError, match=r"none of the boxes of 2 files in dets/ .*\(1 boxes of frames that cannot be read"
    ):
        read_dataset("lupersonnl", videos, crops=str(tmp_path / "crops"))
    for name in ("york.pkl", "uk+..+york.pkl", "uk+york+..pkl", "uk+york+a+b.pkl"):
        file = file.rename(videos / "dets" / name)
        with pytest.raises(ValueError, match=r"\.pkl: expected the name <country>\+<city>\+<id>\.pkl"):
            read_dataset("lupersonnl", videos, crops=str(tmp_path / "crops"))
    assert not list((tmp_path / "crops").rglob("*.jpg"))


def test_a_broken_video_is_named_and_left_out(videos, tmp_path, capsys):
    video = videos / "videos/uk/york/uk+york+AbC-_1.mp4"
    detections = (videos / "dets/uk+york+AbC-_1.pkl").read_bytes()
    (videos / "dets/uk+york+other.pkl").write_bytes(detections)
    (video.parent / "uk+york+other.mp4").write_bytes(video.read_bytes())
    video.write_bytes(b"no video")
    reading = read_dataset("lupersonnl", videos, crops=str(tmp_path / "crops"))
    assert set(reading.samples["video"]) == {"uk+york+other"}
    assert reading.left_out["videos that cannot be opened"] == 1
    assert "AbC-_1.mp4: left out, frame 1 cannot be decoded" in capsys.readouterr().err
