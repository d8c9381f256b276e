"""`report.html`: its content, sections left out with the reason, and layout in a browser."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cion_jax.configs import demo
from cion_jax.conversion import write_weights
from cion_jax.correlation import correlate_to
from cion_jax.evaluation import LabelledImages
from cion_jax.evaluation.evidence import gather
from cion_jax.models import create_model
from cion_jax.pipeline.report_page import write_page
from cion_jax.pipeline.run_report import reopened
from cion_jax.pipeline.settings import remember_config, remembered
from cion_jax.pipeline.workdir import Workdir
from cion_jax.reporting.data import data_section
from cion_jax.reporting.page import Column, Page, Section, Table, Text, render
from cion_jax.reporting.summary import Outcome, in_time, summary_section
from cion_jax.runtime.config import flat
from cion_jax.runtime.files import read_json, write_json
from cion_jax.samples import SampleTable, write_samples
from tests.browser import DESKTOP, PHONE, browser, screenshot, show

TITLES = [
    "Summary",
    "Input data",
    "Noise and identities",
    "Identities",
    "Least certain links",
    "Self-distillation",
    "Retrieval",
    "Ranked lists",
    "t-SNE of features",
    "Attention",
]
ODD = "v0/<b>&amp;.png"  # a file name that is no HTML
PEOPLE, VIDEOS, CROPS = 5, 3, 4


def make_run(root: Path) -> Workdir:
    """Writes the files of a complete run in a second: random images, invented scores, real identities."""
    config = demo.get_config()
    config.model, config.data.samples, config.data.images = "vit_test", str(root / "crawl.parquet"), str(root / "crops")
    config.pretrain.views.global_size = (32, 16)
    config.pretrain.head.prototypes = 64
    config.stages = ("extract", "correlate", "pretrain", "evaluate", "export")
    workdir = Workdir(root, config)
    root.mkdir(exist_ok=True)
    remember_config(config, workdir)
    make_identities(workdir)
    for by in config.pretrain.group_by:
        (workdir.runs / by).mkdir(parents=True)
        write_weights(create_model("vit_test"), workdir.runs / by / "teacher.pth", about={"data": "0123abcd"})
        (workdir.runs / by / "metrics.jsonl").write_text("".join(map(metrics_line, range(9, 200, 10))))
    make_scores(workdir)
    write_json(root / "seconds.json", {"correlate": 2.5, "pretrain": 4000.0})
    return workdir


def make_identities(workdir: Workdir) -> None:
    random = np.random.default_rng(0)
    person, video, crop = (part.ravel() for part in np.indices((PEOPLE, VIDEOS, CROPS)))
    paths = [f"v{v}/{p}-{c}.png" for p, v, c in zip(person, video, crop)]
    paths[0] = ODD
    for path, p in zip(paths, person):
        file = workdir.images / path
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(40 * p, 40 * p + 40, (32, 16, 3), np.uint8)).save(file)
    (workdir.images / paths[1]).write_bytes((workdir.images / ODD).read_bytes())
    table = SampleTable.from_columns(file_path=paths, video=video, tracklet=person, frame=crop, person=person)
    write_samples(table, workdir.samples)
    features = np.eye(8)[person] + 0.4 * np.eye(8)[5 + video] + random.normal(0, 0.03, (len(paths), 8))
    np.save(workdir.features, features.astype(np.float32))
    workdir.features.with_suffix(".json").write_text("{}")
    correlate_to(workdir.correlation, workdir.samples, workdir.features)


def metrics_line(step: int) -> str:
    fall = float(np.exp(-step / 50))
    return (
        f'{{"step": {step}, "loss": {1 + 3 * fall}, "kl": {fall}, "teacher_entropy": {1 + 2 * fall}, '
        f'"mean_entropy": 3.0, "feature_std": 0.1, "images_per_second": 100.0}}\n'
    )


def make_scores(workdir: Workdir) -> None:
    paths = [str(path) for path in sorted(workdir.images.rglob("*-*.png"))]
    ids, cameras = np.arange(len(paths)) % PEOPLE, np.arange(len(paths)) % 4
    images = LabelledImages(paths, ids, cameras)
    features = np.random.default_rng(1).normal(size=(len(paths), 6))
    scores = {score: 0.5 for score in ("mAP", "rank1", "rank5", "rank10", "mINP")}
    counts = {"queries": 20, "gallery": 40, "undecodable": 0, "queries_absent_from_gallery": 3}
    counts["queries_matched_by_own_camera_only"] = 0
    query = images.select(np.arange(20))
    precision = np.linspace(0.1, 1, 20)
    networks = "untrained", "tracklet", "identity"
    for name in networks:
        gather(query, images, features[:20], features, precision, ignore_camera=False).save(workdir.evidence(name))
    write_json(workdir.scores, {name: scores | counts for name in networks})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = make_run(tmp_path_factory.mktemp("run"))
    write_page(reopened(workdir.root))
    return workdir


class Reader(HTMLParser):
    """Records the elements and text of an HTML file."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.ids, self.addresses, self.headings, self.said = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.append((tag, given))
        self.ids += [given["id"]] if "id" in given else []
        self.addresses += [given[name] for name in ("src", "href") if name in given]

    def handle_data(self, data):
        self.said.append(data.strip())
        if self.tags and self.tags[-1][0] == "h2" and data.strip():
            self.headings.append(data.strip())


def read(workdir: Workdir) -> Reader:
    return Reader((workdir.root / "report.html").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_all_sections_of_a_finished_run_are_there_in_order(run):
    page = read(run)
    assert page.headings == TITLES
    text = " ".join(page.said)
    assert "60 person crops came in 15 tracklets. Correlation found that they show 5 identities" in text
    assert "1 h 6 min" in text and "2.5 s" in text and "0123abcd" in text
    assert "3 queries have no match" in text
    assert "Trained: pre-trained on raw tracklets for 200 steps" in text
    assert not list(run.root.rglob("*.tmp"))


@pytest.mark.slow
def test_the_page_is_self_contained_and_accessible(run):
    page = read(run)
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= set(page.ids)
    assert len(set(page.ids)) == len(page.ids)
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link rel=stylesheet", "iframe", "object"}
    images = [given for tag, given in page.tags if tag == "img"]
    assert len(images) > 60 and all(len(given["alt"]) > 4 for given in images)
    assert ("html", {"lang": "en"}) in page.tags
    style = (run.root / "report.html").read_text()
    assert "url(" not in style and "@import" not in style


@pytest.mark.slow
def test_file_names_are_escaped(run):
    page = read(run)
    assert "b" not in {tag for tag, _ in page.tags}
    assert any(ODD in said for said in page.said)  # the doctor names it: another image has its content


@pytest.mark.slow
def test_links_are_marked_by_who_is_shown_and_shown_from_both_sides(run):
    report = read_json(run.correlation / "report.json")
    links = [link for level in report["levels"] for large in level["largest"] for link in large["weakest_links"]]
    assert len(links) == PEOPLE * (VIDEOS - 1)
    for link in links:
        sides = [{Path(path).parent.name for path in side} for side in link["images"]]
        assert all(len(side) == 1 for side in sides) and sides[0] != sides[1]  # tracklets of different videos
        names = [path for side in link["images"] for path in side if path != ODD]
        assert len({Path(path).name[0] for path in names}) == 1
    said = " ".join(read(run).said)
    assert said.count(": one person") == 8 and "two persons" not in said


def test_a_run_without_results_has_a_report_too(tmp_path):
    config = demo.get_config()
    remember_config(config, Workdir(tmp_path, config))
    write_page(reopened(tmp_path))
    page = read(reopened(tmp_path))
    assert page.headings == ["Summary", "Left out"]
    said = " ".join(page.said)
    assert "has neither correlated identities nor been evaluated" in said
    assert "the correlate stage has not been run here" in said and "crawl.parquet" in said


@pytest.mark.slow
def test_a_broken_file_leaves_out_its_own_section_only(run, tmp_path, capsys):
    for name in ("config.json", "evaluation.json", "pretrain", "correlation"):
        (tmp_path / name).symlink_to(run.root / name)
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "identity.npz").write_bytes(b"PK broken")
    write_page(reopened(tmp_path))
    page = read(reopened(tmp_path))
    left = page.said[page.said.index("Left out") :]
    assert {title for title in TITLES if title in left} == {"Ranked lists", "t-SNE of features"}
    assert "identity.npz: not what evaluation writes" in capsys.readouterr().err.replace("\n", "")


@pytest.mark.slow
def test_a_collapse_is_reported_at_the_top(run, tmp_path):
    for name in ("config.json", "evaluation.json"):
        (tmp_path / name).symlink_to(run.root / name)
    (tmp_path / "pretrain" / "identity").mkdir(parents=True)
    line = metrics_line(99).replace('"mean_entropy": 3.0', '"mean_entropy": 0.01')
    (tmp_path / "pretrain" / "identity" / "metrics.jsonl").write_text(line)
    write_page(reopened(tmp_path))
    text = (tmp_path / "report.html").read_text()
    assert 0 < text.index("collapse to one prototype") < text.index('id="self-distillation"')


@pytest.mark.slow
def test_the_config_comes_back_from_its_workdir(run):
    before, after = flat(run.config.to_dict()), flat(remembered(run.root).to_dict())
    assert set(after.pop("stages")) == {"extract", "correlate", "pretrain", "evaluate"}  # export has not been run
    assert {"model", "evaluate.root", "correlate.half_width", "pretrain.group_by"} <= after.keys()
    assert after == {name: before[name] for name in after}
    with pytest.raises(ValueError, match=r"config\.json: no such file"):
        reopened(run.root / "nowhere")


@pytest.mark.slow
def test_the_page_fits_phone_and_desktop(run, tmp_path):
    wide = tmp_path / "wide.html"
    wide.write_text('<!DOCTYPE html><div style="width: 2000px">x</div><script>console.error("seen")</script>')
    cells = [Column("A long heading" * 3)] * 20
    table = Table("Wide", cells, [["1,000,000"] * 20])
    tables = tmp_path / "tables.html"
    tables.write_text(render(Page("Tables", "now", [Section("Wide", [table, Text("x" * 500)])])))
    with browser() as running:
        seen = show(running, wide, PHONE)
        assert seen["sticking_out"] and seen["overflow"] and seen["console"]  # the test can fail
        for width in (PHONE, DESKTOP):
            for page in (run.root / "report.html", tables):
                seen = show(running, page, width)
                assert not seen["console"] and not seen["sticking_out"] and not seen["overflow"]
            seen = show(running, run.root / "report.html", width)
            picture = tmp_path / f"{width}.png"
            screenshot(running, picture, width, seen["height"])
            pixels = np.asarray(Image.open(picture).convert("RGB")).reshape(-1, 3)
            assert len(pixels) == width * seen["height"] and len(np.unique(pixels[::101], axis=0)) > 100
        broken = "return [...document.images].filter(i => !i.complete || !i.naturalWidth).length"
        assert running.execute_script(broken) == 0


def test_titles_become_unique_anchors():
    text = render(Page("T", "m", [Section("Two words", [Text("a < b")])], [("Gone", "not there")]))
    assert re.search(r'<section id="two-words"', text) and "a &lt; b" in text and "not there" in text


def test_unusable_videos_are_named_and_large_sets_are_not_decoded():
    ingested = {"videos": 9, "broken": {"cut<1>.mkv": "no frames"}, "frames": 1200.0, "crops": 300.0, "tracklets": 40.0}
    counts = {"images": 300, "images_per_tracklet": [1.0, 8.0, 20.0]}
    text = render(Page("T", "m", [data_section({"contents": counts}, ingested)]))
    assert "From 8 videos and 1,200 frames, 300 person crops" in text and "cut&lt;1&gt;.mkv: no frames" in text
    assert "too many" in text and "nothing is wrong" not in text and "doctor.json" in text
    found = {"contents": counts, "images": {"height": [], "width": []}, "remarks": [], "problems": []}
    text = render(Page("T", "m", [data_section(found, None)]))
    assert "nothing is wrong" in text and "videos" not in text
    finding = {"what": "images that cannot be decoded", "count": 7, "examples": ["a.png", "b.png"]}
    text = render(Page("T", "m", [data_section(found | {"problems": [finding]}, None)]))
    assert "Wrong: 7 images that cannot be decoded (a.png; b.png, ...)" in text and "nothing is wrong" not in text


def test_a_suspicious_identity_is_reported_at_the_top():
    entry = {"level": 0, "identities": 2, "images_discarded": 0, "noise": 1.0}
    correlation = {"images": 10, "levels": [entry, entry | {"level": 3, "warning": "links have chained"}]}
    outcome = Outcome("vit_test", correlation, None, "untrained", "after", {}, [], [])
    assert "level 3: links have chained" in render(Page("T", "m", [summary_section(outcome)]))


@pytest.mark.parametrize(
    "seconds, said", [(0.04, "0.0 s"), (59.94, "59.9 s"), (61, "1 min 1 s"), (90000, "25 h 0 min")]
)
def test_durations_are_formatted_for_reading(seconds, said):
    assert in_time(seconds) == said
