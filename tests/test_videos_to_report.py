"""End-to-end run of one command, from videos to identities and a report."""

import subprocess
import sys
from pathlib import Path

import pytest

from cion_jax.conversion import write_weights
from cion_jax.models import create_model
from cion_jax.runtime.files import read_json
from cion_jax.samples import read_samples
from cion_jax.street import street_config
from cion_jax.street.film import film_street
from cion_jax.street.passages import FilmConfig
from tests.videos import scene, tracks, write_video

ROOT = Path(__file__).parent.parent


def film(folder: Path) -> list[str]:
    """Renders people walking past two fixed cameras; returns the command's arguments."""
    config = street_config(crawl_people=4, crawl_videos=2, people_per_video=4)
    film_street(config, folder, FilmConfig(height=200, width=320, far=0.6, near=0.75, rate=8, seconds=12.0), workers=2)
    return [f"--config.ingest.videos={folder / 'videos'}", "--config.ingest.detector=motion"]


def tracked(folder: Path) -> list[str]:
    """Writes two videos with hand-written tracks and a broken one; returns the command's arguments."""
    for name in ("a", "b"):
        write_video(folder / "videos" / f"{name}.mkv", scene(30))
    (folder / "videos" / "cut.mkv").write_bytes((folder / "videos" / "a.mkv").read_bytes()[:3000])
    (folder / "tracks").mkdir()
    for name in ("a", "b", "cut"):
        (folder / "tracks" / f"{name}.txt").write_text(tracks(30))
    return [f"--config.ingest.videos={folder / 'videos'}", f"--config.ingest.tracks={folder / 'tracks'}"]


@pytest.mark.slow
@pytest.mark.parametrize("made, videos, broken", [(film, 2, 0), (tracked, 3, 1)])
def test_from_videos_to_a_report_with_one_command(made, videos, broken, tmp_path):
    weights, workdir = tmp_path / "resnet.pth", tmp_path / "run"
    write_weights(create_model("resnet_test"), weights)
    extractor = [f"--config.extractor.{k}={v}" for k, v in {"model": "resnet_test", "weights": weights}.items()]
    command = [sys.executable, "-m", "cion_jax.main", "--config=configs/videos.py", f"--workdir={workdir}"]
    given = [*made(tmp_path / "given"), *extractor, "--config.extractor.size=(64, 32)", "--compile_cache="]
    done = subprocess.run([*command, *given], cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    ingested = read_json(workdir / "ingest" / "report.json")
    assert (ingested["videos"], len(ingested["broken"])) == (videos, broken)
    assert ("videos are left out" in done.stderr) == bool(broken)
    identities = read_samples(workdir / "correlation" / "identities.parquet")
    assert len(identities) == ingested["crops"] and {"video", "tracklet", "frame", "identity"} <= set(
        identities.columns
    )
    assert "</html>" in (workdir / "report.html").read_text()


@pytest.mark.parametrize("given, message", [([], "ingest.videos"), (["--config.ingest.videos=nowhere"], "'nowhere'")])
def test_missing_videos_are_reported_before_work(given, message, tmp_path):
    command = [sys.executable, "-m", "cion_jax.main", "--config=configs/videos.py", f"--workdir={tmp_path}"]
    done = subprocess.run([*command, *given], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and message in done.stderr and not list(tmp_path.iterdir())
