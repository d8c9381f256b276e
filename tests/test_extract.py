"""Feature extraction with a small stand-in model: values, batching, alignment, bad input, interruption."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

import cion_jax
from cion_jax.conversion import load_with_provenance, write_weights
from cion_jax.features import store
from cion_jax.features.extraction import chosen_precision, embedder, extract_features
from cion_jax.features.store import aligned_samples, extract, list_samples
from cion_jax.models import create_model
from cion_jax.runtime.platform import inference_options, traced_for
from cion_jax.samples import IMAGENET_MEAN, IMAGENET_STD, SampleTable, read_samples, write_samples
from tests.commands import run_command
from tests.networks import SIZE, Tiny, paths_in


@pytest.fixture
def folder(tmp_path):
    """Ten readable images of the model's size; pixels are exact (PNG)."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for i in range(10):
        pixels = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i}.png")
    return tmp_path / "images"


def direct(model: Tiny, paths, mean=IMAGENET_MEAN, std=IMAGENET_STD) -> np.ndarray:
    """Float64 NumPy, image by image, from the model's weights."""
    first, bias, second = (
        np.asarray(value, np.float64)
        for value in (model.first.kernel[...], model.first.bias[...], model.second.kernel[...])
    )
    features = []
    for path in paths:
        pixels = np.asarray(Image.open(path), np.float64) / 255
        pixels = (pixels - np.array(mean)) / np.array(std)
        halves = [pixels[top : top + 8, left : left + 4].mean(axis=(0, 1)) for top in (0, 8) for left in (0, 4)]
        feature = np.tanh(np.concatenate(halves) @ first + bias) @ second
        features.append(feature / np.sqrt((feature**2).sum()))
    return np.array(features)


@pytest.mark.parametrize("batch_size", [1, 3, 5, 10, 64])
def test_features_are_the_models_at_any_batch_size(folder, batch_size):
    model = Tiny()
    result = extract_features(model, paths_in(folder), size=SIZE, batch_size=batch_size, dtype="float32")
    np.testing.assert_allclose(result.features, direct(model, paths_in(folder)), atol=2e-6)
    assert result.features.dtype == np.float32
    assert result.rows.tolist() == list(range(10)) and result.undecodable == {}


@pytest.mark.usefixtures("optimised")
def test_on_a_cpu_products_are_those_of_the_faster_library():
    forward, state = embedder(create_model("vit_test"))
    images = np.zeros((2, 64, 32, 3), np.uint8)
    assert "__ynn_fusion" in forward.lower(state, images).compile().as_text()
    with traced_for("cuda"):
        assert not inference_options()


def test_the_callers_model_keeps_its_mode(folder):
    model = Tiny()
    model.train()
    extract_features(model, paths_in(folder), size=SIZE)
    assert model.drop.deterministic is False


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_the_network_computes_in_the_precision_that_is_asked_for(folder, tmp_path, precision):
    """Features are those of a network made in that number type, and say so; the caller's network is unchanged."""
    model, table = create_model("vit_test"), SampleTable.from_columns(file_path=[f"{i}.png" for i in range(10)])
    options = dict(size=(64, 32), dtype="float32")
    result = extract(model, table, folder, tmp_path / "F.npy", about={}, precision=precision, **options)
    made_so = create_model("vit_test", dtype=jnp.dtype(precision))
    np.testing.assert_array_equal(result.features, extract_features(made_so, paths_in(folder), **options).features)
    assert json.loads((tmp_path / "F.json").read_text())["precision"] == precision
    exact = extract_features(model, paths_in(folder), **options).features
    distance = 1 - (result.features * exact).sum(1)
    assert distance.max() < 1e-3 and (distance.max() > 1e-6) == (precision == "bfloat16")


def test_only_a_gpu_computes_features_in_bfloat16_by_itself(monkeypatch):
    assert chosen_precision("auto") == "float32"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert [chosen_precision(x) for x in ("auto", "float32")] == ["bfloat16", "float32"]
    with pytest.raises(ValueError, match="'float64' is unknown; choose one of auto, float32, bfloat16"):
        chosen_precision("float64")


def test_one_compilation(folder):
    traced = []

    class Counting(Tiny):
        def __call__(self, images):
            traced.append(images.shape)
            return super().__call__(images)

    extract_features(Counting(), paths_in(folder), size=SIZE, batch_size=4)
    assert traced == [(4, *SIZE, 3)]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_written_features_are_memory_mapped_and_the_same(folder, tmp_path, dtype):
    model = Tiny()
    kept = extract_features(model, paths_in(folder), size=SIZE, batch_size=4, dtype=dtype)
    written = extract_features(model, paths_in(folder), size=SIZE, batch_size=4, dtype=dtype, out=tmp_path / "F.npy")
    assert isinstance(written.features, np.memmap) and written.features.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(written.features, kept.features)
    np.testing.assert_array_equal(np.load(tmp_path / "F.npy"), kept.features)


def test_undecodable_images_are_set_aside_and_rows_stay_aligned(folder, tmp_path):
    model, paths = Tiny(), paths_in(folder)
    expected = direct(model, paths)
    for row in (0, 4, 5, 6, 7, 9):  # a whole batch among them
        (folder / f"{row}.png").write_bytes(b"broken")
    table = SampleTable.from_columns(file_path=[f"{i}.png" for i in range(10)], frame=range(100, 110))
    out = tmp_path / "F.npy"
    result = extract(model, table, folder, out, about={"model": "tiny"}, size=SIZE, batch_size=4, dtype="float32")
    assert result.rows.tolist() == [1, 2, 3, 8] and sorted(result.undecodable) == [0, 4, 5, 6, 7, 9]
    assert read_samples(aligned_samples(out))["frame"].tolist() == [101, 102, 103, 108]
    np.testing.assert_allclose(np.load(out), expected[[1, 2, 3, 8]], atol=2e-6)
    report = json.loads(out.with_suffix(".json").read_text())
    assert (report["rows"], report["dim"], report["undecodable"]) == (4, 5, 6)
    assert report["model"] == "tiny" and report["size"] == [16, 8] and report["dtype"] == "float32"
    assert "0.png" in report["undecodable_examples"][0]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "F.json",
        "F.npy",
        "F.samples.parquet",
        "images",
    ]


def test_preprocessing_is_recorded_beside_the_features(folder, tmp_path):
    """The recorded description suffices to compute the same features, here in float64 NumPy."""
    model, table = Tiny(), SampleTable.from_columns(file_path=["3.png", "8.png"])
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    extract(model, table, folder, tmp_path / "F.npy", about={}, size=SIZE, mean=mean, std=std, dtype="float32")
    report = json.loads((tmp_path / "F.json").read_text())
    assert report["interpolation"] == "bilinear, antialiased" and report["l2_normalised"] is True
    assert report["versions"] == {"cion_jax": cion_jax.__version__, "jax": jax.__version__}
    described = direct(model, paths_in(folder), report["mean"], report["std"])
    np.testing.assert_allclose(np.load(tmp_path / "F.npy"), described[[3, 8]], atol=2e-6)
    assert np.abs(described - direct(model, paths_in(folder))).max() > 0.01  # other colours do make a difference


# --- a folder


def test_a_folder_that_changed_is_extracted_anew(folder, tmp_path):
    """Nothing of an earlier run is reused: neither its rows nor features of replaced images."""
    out, model = tmp_path / "F.npy", Tiny()

    def paths_of_a_run() -> list[str]:
        table = list_samples(None, folder, out)
        extract(model, table, folder, out, about={}, size=SIZE, dtype="float32")
        paths = read_samples(aligned_samples(out))["file_path"].tolist()
        np.testing.assert_allclose(np.load(out), direct(model, [folder / path for path in paths]), atol=2e-6)
        return paths

    assert paths_of_a_run() == [f"{i}.png" for i in range(10)]
    (folder / "2.png").unlink()
    (folder / "4.png").rename(folder / "40.png")
    (folder / "5.png").write_bytes((folder / "6.png").read_bytes())
    assert paths_of_a_run() == [f"{i}.png" for i in (0, 1, 3, 40, 5, 6, 7, 8, 9)]


def test_a_folder_or_a_table_is_read(folder, tmp_path):
    table = SampleTable.from_columns(file_path=["7.png", "1.png"])
    write_samples(table, tmp_path / "s.parquet")
    assert list_samples(tmp_path / "s.parquet", folder, "F.npy")["file_path"].tolist() == ["7.png", "1.png"]
    assert len(list_samples(None, folder, "F.npy")) == 10
    with pytest.raises(ValueError, match="gone: no such folder"):
        list_samples(None, tmp_path / "gone", "F.npy")
    with pytest.raises(ValueError, match=r"s\.parquet: a file, expected a folder of images"):
        list_samples(None, tmp_path / "s.parquet", "F.npy")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: no image in this folder or below it"):
        list_samples(None, tmp_path / "empty", "F.npy")


def test_the_users_table_is_not_replaced_by_the_description(folder, tmp_path):
    (tmp_path / "F.json").write_text('[{"file_path": "0.png"}]')
    with pytest.raises(ValueError, match=r"F\.json: .*F\.npy has its description here.*another --out"):
        list_samples(tmp_path / "F.json", folder, tmp_path / "F.npy")
    assert len(list_samples(tmp_path / "F.json", folder, tmp_path / "G.npy")) == 1


def test_weights_are_described(tmp_path):
    write_weights(create_model("resnet_ibn_test", rngs=nnx.Rngs(1)), tmp_path / "w.pth")
    model = create_model("resnet_ibn_test")
    assert load_with_provenance(model, tmp_path / "w.pth") == {
        "weights": "w.pth",
        "weights_sha256": hashlib.sha256((tmp_path / "w.pth").read_bytes()).hexdigest(),
        "weights_taken": "section 'teacher', keys under 'module.backbone.'",
    }


def test_no_readable_image_is_an_error(folder, tmp_path):
    for i in range(10):
        (folder / f"{i}.png").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"none of 10 images can be decoded.*0\.png"):
        extract_features(Tiny(), paths_in(folder), size=SIZE, batch_size=3, out=tmp_path / "F.npy")
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_zero_features_are_refused_by_row(folder, tmp_path, value):
    Image.new("RGB", SIZE[::-1], (255, 255, 255)).save(folder / "7.png")

    class White(Tiny):
        def __call__(self, images):
            white = images.min(axis=(1, 2, 3)) > 2
            return jnp.where(white[:, None], value, super().__call__(images))

    with pytest.raises(ValueError, match=r"row 7 \(.*7\.png\) is not finite or all zero"):
        extract_features(White(), paths_in(folder), size=SIZE, batch_size=4, out=tmp_path / "F.npy")
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_settings_are_checked_before_work(folder, tmp_path):
    table = SampleTable.from_columns(file_path=["0.png", "gone.png"])
    with pytest.raises(ValueError, match="no images"):
        extract_features(Tiny(), [], size=SIZE)
    with pytest.raises(ValueError, match="batch_size 0"):
        extract_features(Tiny(), paths_in(folder), size=SIZE, batch_size=0)
    with pytest.raises(ValueError, match="'int8'"):
        extract_features(Tiny(), paths_in(folder), size=SIZE, dtype="int8")
    with pytest.raises(ValueError, match=r"ends in \.npy"):
        extract(Tiny(), table, folder, tmp_path / "F.bin", about={}, size=SIZE)
    with pytest.raises(ValueError, match=r"F\.samples\.parquet: the file name is too long; give a shorter --out"):
        extract(Tiny(), table, folder, tmp_path / f"{'F' * 250}.npy", about={}, size=SIZE)
    with pytest.raises(ValueError, match=r"1 of 2 images are not under .*row 1: 'gone\.png'"):
        extract(Tiny(), table, folder, tmp_path / "F.npy", about={}, size=SIZE)


def test_extracting_again_is_never_taken_for_complete_in_between(folder, tmp_path, monkeypatch):
    table = SampleTable.from_columns(file_path=[f"{i}.png" for i in range(10)])
    out = tmp_path / "F.npy"
    extract(Tiny(), table, folder, out, about={}, size=SIZE)

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "write_samples", interrupted)
    with pytest.raises(KeyboardInterrupt):
        extract(Tiny(), table, folder, out, about={}, size=SIZE)
    assert not out.with_suffix(".json").exists()


_SLOW_EXTRACTION = """
import sys, time
import numpy as np
from cion_jax.features import extraction as stage
from tests.networks import SIZE, Tiny, paths_in
from pathlib import Path

def slow(batch, features, paths, fetch=stage._fetch):
    print("batch", flush=True)
    time.sleep(0.5)
    return fetch(batch, features, paths)

stage._fetch = slow
folder = Path(sys.argv[1])
stage.extract_features(Tiny(), paths_in(folder), size=SIZE, batch_size=1, out=folder.parent / "F.npy")
"""


@pytest.mark.slow
def test_killed_extraction_leaves_nothing_under_the_final_name(folder, tmp_path):
    command = [sys.executable, "-c", _SLOW_EXTRACTION, str(folder)]
    root = Path(__file__).parents[1]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout is not None
        for _ in range(3):
            assert process.stdout.readline() == "batch\n"
        time.sleep(0.1)
        os.kill(process.pid, signal.SIGKILL)
    assert not (tmp_path / "F.npy").exists()
    assert [path.suffix for path in tmp_path.iterdir() if path != folder] == [".tmp"]
    extract_features(Tiny(), paths_in(folder), size=SIZE, out=tmp_path / "F.npy")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["F.npy", "images"]


@pytest.mark.slow
def test_the_command_writes_its_files(folder, tmp_path):
    (folder / "3.png").write_bytes(b"broken")
    table = SampleTable.from_columns(file_path=[f"{i}.png" for i in range(10)])
    write_samples(table, tmp_path / "s.parquet")
    flags = [
        "cion_jax.extract",
        f"--samples={tmp_path}/s.parquet",
        f"--images={folder}",
        f"--out={tmp_path}/F.npy",
        "--model=resnet_ibn_test",
    ]
    refused = run_command(*flags)
    assert refused.returncode == 2 and "--weights" in refused.stderr and "Traceback" not in refused.stderr
    done = run_command(*flags, "--random_weights", "--height=64", "--width=32")
    assert done.returncode == 0, done.stderr
    assert "9 rows" in done.stdout and "1 of 10 images could not be decoded" in " ".join(done.stderr.split())
    assert np.load(tmp_path / "F.npy").shape[0] == len(read_samples(tmp_path / "F.samples.parquet")) == 9
    assert json.loads((tmp_path / "F.json").read_text())["model"] == "resnet_ibn_test"


@pytest.mark.slow
def test_command_on_a_folder(folder, tmp_path):
    """One command from a folder to embeddings by the given weights; every broken image is named."""
    model = create_model("resnet_ibn_test", rngs=nnx.Rngs(1))
    write_weights(model, tmp_path / "w.pth")
    (folder / "below").mkdir()
    (folder / "9.png").rename(folder / "below" / "9.png")
    for name in ("3.png", "5.png"):
        (folder / name).write_bytes(b"broken")
    out = tmp_path / "F.npy"
    settings = ["--model=resnet_ibn_test", f"--weights={tmp_path}/w.pth", "--height=64", "--width=32"]
    done = run_command("cion_jax.extract", f"--images={folder}", f"--out={out}", *settings)
    assert done.returncode == 0, done.stderr
    assert f"{folder}/3.png: not an image" in done.stderr and f"{folder}/5.png: not an image" in done.stderr
    paths = read_samples(aligned_samples(out))["file_path"].tolist()
    assert paths == ["0.png", "1.png", "2.png", "4.png", "6.png", "7.png", "8.png", "below/9.png"]
    expected = extract_features(model, [folder / path for path in paths], size=(64, 32), dtype="float32").features
    np.testing.assert_allclose(np.load(out), expected, atol=1e-3)  # float16 in the file
    report = json.loads(out.with_suffix(".json").read_text())
    assert report["weights"] == "w.pth" and report["images"] == str(folder) and report["samples"] is None
    assert (report["model"], report["size"], report["rows"], report["dim"]) == ("resnet_ibn_test", [64, 32], 8, 64)
