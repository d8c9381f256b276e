"""Synthetic street: determinism, output formats, the tracker's error rates, rendering and settings."""

import collections
import dataclasses
import hashlib
import itertools
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cion_jax.samples import load_image, read_samples
from cion_jax.street import StreetConfig, build_street, street_config
from cion_jax.street import build as build_module
from cion_jax.street.people import make_person
from cion_jax.street.plan import plan_benchmark, plan_crawl, plan_labelled
from cion_jax.street.randomness import Population, Stream, generator
from cion_jax.street.render import render_shot
from cion_jax.street.tracker import NOBODY, track_video

SMALL = street_config(
    labelled_people=5,
    labelled_cameras=3,
    labelled_cameras_per_person=2,
    labelled_frames=2,
    crawl_people=10,
    crawl_videos=2,
    people_per_video=5,
    benchmark_people=4,
    benchmark_cameras=3,
    benchmark_cameras_per_person=(2, 3),
    benchmark_frames=(1, 2),
    benchmark_distractors=3,
    benchmark_junk=2,
)
# All image degradations turned off.
CLEAR = dataclasses.replace(SMALL, camera_strength=0.0, background=0.0, occlusion=0.0, box_jitter=0.0)


@pytest.fixture(scope="module")
def street(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("street") / "street"
    build_street(SMALL, folder, workers=1)
    return folder


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# Determinism


def test_same_bytes_with_any_number_of_workers(street, tmp_path):
    build_street(SMALL, tmp_path / "again", workers=2)
    assert digests(tmp_path / "again") == digests(street)


def test_another_seed_is_another_street():
    other = dataclasses.replace(SMALL, seed=1)
    assert track_signature(SMALL) != track_signature(other)
    shot = plan_labelled(SMALL)[0][0]
    assert np.abs(render_shot(SMALL, shot).astype(int) - render_shot(other, shot)).mean() > 5


def track_signature(config: StreetConfig) -> list:
    return [(t.frames.tolist(), t.people.tolist()) for t in track_video(config, 0)]


def test_growing_the_crawl_leaves_the_other_populations_as_they_are():
    grown = dataclasses.replace(SMALL, crawl_people=40, crawl_videos=5)
    assert plan_benchmark(grown) == plan_benchmark(SMALL)
    shots = plan_labelled(SMALL)[0]
    assert plan_labelled(grown)[0] == shots
    assert np.array_equal(render_shot(grown, shots[3]), render_shot(SMALL, shots[3]))


# Output files


def test_tables_name_exactly_the_crops_that_are_there(street):
    for name in ("labelled", "crawl"):
        table = read_samples(street / name / f"{name}.parquet")
        there = {str(path.relative_to(street / name)) for path in (street / name).rglob("*.jpg")}
        assert set(table["file_path"]) == there
        assert {"video", "tracklet", "frame", "person"} <= set(table.columns)


def test_the_crawl_knows_no_identities_and_the_labelled_people_do(street):
    assert "identity" not in read_samples(street / "crawl" / "crawl.parquet").columns
    labelled = read_samples(street / "labelled" / "labelled.parquet")
    crops = SMALL.labelled_cameras_per_person * SMALL.labelled_frames
    assert collections.Counter(labelled["identity"].tolist()) == dict.fromkeys(range(5), crops)


def test_crops_decode_and_have_the_configured_size(street):
    crops = list(street.rglob("*.jpg"))
    assert len(crops) > 100
    for crop in crops:
        image = load_image(crop)
        assert image.shape == (SMALL.height, SMALL.width, 3) and image.std() > 1, crop


def test_benchmark_names_are_those_of_market1501(street):
    root = street / "benchmark"
    pattern = re.compile(r"(-1|\d{4})_c([1-9])s\d_\d{6}_\d+\.jpg")
    names = {folder: [pattern.fullmatch(path.name) for path in (root / folder).iterdir()] for folder in FOLDERS}
    assert all(match for matches in names.values() for match in matches)
    queries = {match.groups() for match in names["query"]}
    gallery = [match.groups() for match in names["bounding_box_test"]]
    people = {f"{number:04d}" for number in range(1, SMALL.benchmark_people + 1)}
    assert {person for person, _ in queries} == people
    assert {person for person, _ in gallery} == people | {"0000", "-1"}
    assert len(queries) == len(names["query"])  # one per person and camera
    for person, camera in queries:
        assert any(person == other and camera != seen_by for other, seen_by in gallery)


FOLDERS = ("query", "bounding_box_test", "bounding_box_train")


def test_contact_sheet_shows_something(street):
    sheet = load_image(street / "contact_sheet.png")
    assert sheet.shape[0] > 1000 and sheet.shape[1] > 500 and sheet.std() > 20


def test_an_interrupted_build_leaves_nothing(tmp_path, monkeypatch):
    rendered = []

    def stop_in_the_middle(config, shot):
        if len(rendered) == 5:
            raise KeyboardInterrupt
        rendered.append(shot)
        return render_shot(config, shot)

    monkeypatch.setattr(build_module, "render_shot", stop_in_the_middle)
    with pytest.raises(KeyboardInterrupt):
        build_street(SMALL, tmp_path / "street", workers=1)
    assert len(rendered) == 5 and list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_workers_stop_when_their_builder_is_killed(tmp_path):
    script = tmp_path / "build.py"
    script.write_text(
        "import sys\nfrom cion_jax.street import build_street, street_config\n"
        "if __name__ == '__main__':\n    build_street(street_config(), sys.argv[1], workers=2)\n"
    )
    out = tmp_path / "out" / "street"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    builder = subprocess.Popen([sys.executable, script, out], start_new_session=True, env=environment)
    try:
        wait_until(lambda: sum(1 for _ in tmp_path.rglob("*.jpg")) > 50 or builder.poll() is not None)
    finally:
        os.kill(builder.pid, signal.SIGKILL)
        builder.wait()
    time.sleep(1)  # lets crops that were being written finish
    written = sum(1 for _ in tmp_path.rglob("*.jpg"))
    time.sleep(1)
    assert sum(1 for _ in tmp_path.rglob("*.jpg")) == written
    assert 50 < written < 10_000
    assert not out.exists()


def wait_until(condition, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)


# The populations and the tracker


def test_populations_are_disjoint():
    config = street_config()
    counts = {
        Population.LABELLED: config.labelled_people,
        Population.CRAWL: config.crawl_people,
        Population.BENCHMARK: config.benchmark_people + config.benchmark_distractors,
    }
    looks = [
        make_person(generator(config, population, Stream.PERSON, index))
        for population, count in counts.items()
        for index in range(count)
    ]
    assert len(set(looks)) == sum(counts.values())
    labelled, crawl = plan_labelled(SMALL)[1], plan_crawl(SMALL)[1]
    assert not set(labelled["person"].tolist()) & set(crawl["person"].tolist())


@pytest.fixture(scope="module")
def default_crawl():
    return plan_crawl(street_config())[1]


def people_of_tracklets(table) -> list[list[int]]:
    tracklets, people = table.tracklets, table["person"]
    return [people[tracklets == number].tolist() for number in range(tracklets.max() + 1)]


def test_flaws_appear_at_the_configured_rates(default_crawl):
    config, tracklets = street_config(), people_of_tracklets(default_crawl)
    ghosts = [people for people in tracklets if set(people) == {NOBODY}]
    others = [people for people in tracklets if set(people) != {NOBODY}]
    switched = [people for people in others if len(set(people) - {NOBODY}) == 2]
    slipped = sum(people.count(NOBODY) for people in others)
    assert max(len(set(people) - {NOBODY}) for people in others) == 2
    # Within four standard deviations of a binomial around the configured rates.
    assert len(switched) / len(others) == pytest.approx(config.switch_rate, abs=0.045)
    assert slipped / sum(map(len, others)) == pytest.approx(config.slip_rate, abs=0.006)
    assert len(ghosts) / len(others) == pytest.approx(config.ghost_rate, abs=0.012)


def test_a_tracker_without_flaws_follows_one_person_at_a_time():
    config = street_config(switch_rate=0.0, slip_rate=0.0, ghost_rate=0.0, crawl_videos=5)
    tracklets = people_of_tracklets(plan_crawl(config)[1])
    assert all(len(set(people)) == 1 and people[0] != NOBODY for people in tracklets)
    assert {len(people) for people in tracklets} == set(range(5, 16))


def test_a_person_has_one_crop_in_a_frame_and_fragments_do_not_overlap(default_crawl):
    intervals = collections.defaultdict(list)
    columns = (default_crawl[name].tolist() for name in ("video", "person", "tracklet", "frame"))
    frames = collections.defaultdict(list)
    for video, person, tracklet, frame in zip(*columns):
        if person != NOBODY:
            frames[video, person, tracklet].append(frame)
    for (video, person, _), seen in frames.items():
        assert seen == sorted(set(seen))
        intervals[video, person].append((seen[0], seen[-1]))
    assert max(map(len, intervals.values())) >= 3
    for fragments in intervals.values():
        fragments.sort()
        assert all(before[1] < after[0] for before, after in itertools.pairwise(fragments))


def test_people_share_frames_and_come_back_in_other_videos(default_crawl):
    people, videos = default_crawl["person"], default_crawl["video"]
    together = collections.Counter(zip(videos.tolist(), default_crawl["frame"].tolist()))
    assert 3 < np.mean(list(together.values())) < 8
    assert np.median([len(set(videos[people == person])) for person in set(people.tolist())]) >= 2


def test_raw_tracklets_are_noisy_labels(default_crawl):
    """Compares pairs of crops in the same tracklet with pairs of the same person."""
    people, tracklets = default_crawl["person"], default_crawl.tracklets
    same_person = (people[:, None] == people[None]) & (people != NOBODY)[:, None]
    same_tracklet = tracklets[:, None] == tracklets[None]
    right = (same_person & same_tracklet).sum() - (people != NOBODY).sum()
    precision = right / (same_tracklet.sum() - len(people))
    recall = right / (same_person.sum() - (people != NOBODY).sum())
    assert 0.75 < precision < 0.92 and 0.05 < recall < 0.25


# Rendering


def test_a_clear_empty_street_is_one_grey(tmp_path):
    shot = dataclasses.replace(plan_labelled(CLEAR)[0][0], person=NOBODY)
    crops = render_shot(CLEAR, shot)
    assert np.ptp(crops.astype(int)) <= 1


def test_the_person_fills_the_box_as_configured():
    """Compared with an empty street, the person is in the centre, and wider for a larger `fill`."""
    shares = []
    for fill in (0.8, 1.4):
        config = dataclasses.replace(CLEAR, fill=fill)
        covered = []
        for shot in plan_labelled(config)[0]:
            crops = render_shot(config, shot).astype(int)
            empty = render_shot(config, dataclasses.replace(shot, person=NOBODY)).astype(int)
            covered.append((np.abs(crops - empty).max(-1) > 4).mean(0))
        shares.append(np.mean(covered))
        middle = np.mean(covered, 0)[config.height // 4 : config.height // 2]
        assert middle[:, config.width // 2].mean() > 0.8 and middle[:, 0].mean() < 0.2
    assert 1.3 < shares[1] / shares[0] < 1.9


def test_people_look_alike_only_to_themselves():
    """With clear cameras, the mean colours of a crop's upper and lower halves identify the person."""
    shots = plan_labelled(dataclasses.replace(CLEAR, labelled_people=8))[0]
    looks = {(shot.person, shot.camera): halves(render_shot(CLEAR, shot)) for shot in shots}
    right = 0
    for (person, camera), look in looks.items():
        others = {key: value for key, value in looks.items() if key != (person, camera)}
        right += min(others, key=lambda key: np.linalg.norm(others[key] - look))[0] == person
    assert right / len(looks) > 0.7  # by chance: 1 in 15


def halves(crops: np.ndarray) -> np.ndarray:
    middle = crops[:, :, 16:48].astype(float)
    return np.concatenate([middle[:, 24:64].mean((0, 1, 2)), middle[:, 68:110].mean((0, 1, 2))])


def test_crops_of_another_size_show_the_same_scene():
    shots = plan_labelled(CLEAR)[0][:4]
    large = dataclasses.replace(CLEAR, height=256, width=128)
    for shot in shots:
        fine = render_shot(large, shot).astype(float)
        filtered = fine.reshape(len(fine), 128, 2, 64, 2, 3).mean((2, 4))
        assert np.abs(filtered - render_shot(CLEAR, shot)).mean() < 2.5


# Settings


def test_a_misspelt_setting_is_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match="did you mean 'crawl_videos'"):
        street_config(crawl_video=3)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("switch_rate", 1.2),
        ("slip_rate", -0.1),
        ("crawl_videos", 0),
        ("labelled_people", 2.5),
        ("fragments", (3, 1)),
        ("fragments", 3),
        ("fill", 0.0),
        ("co_visible", 0.0),
        ("people_per_video", 301),
        ("labelled_cameras_per_person", 13),
        ("benchmark_cameras_per_person", (3, 7)),
        ("benchmark_cameras", 10),
        ("benchmark_people", 10_000),
        ("jpeg_quality", 101),
        ("seed", -1),
    ],
)
def test_impossible_settings_are_refused_by_name(setting, value):
    with pytest.raises(ValueError, match=f"street: {setting}="):
        street_config(**{setting: value})
