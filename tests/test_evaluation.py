"""Retrieval scores against a plain reading of the protocol, the Market-1501 layout, and the figures."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from sklearn.metrics import average_precision_score

from cion_jax.evaluation import read_market1501, retrieval_scores
from cion_jax.evaluation import run as command
from cion_jax.evaluation.ranking import Related, match_ranks
from cion_jax.evaluation.summary import summary
from cion_jax.reporting.figures import contact_sheet, curve


def cosine_distance(a, b) -> float:
    dot = math.fsum(float(x) * float(y) for x, y in zip(a, b))
    return 1 - dot / math.sqrt(math.fsum(float(x) ** 2 for x in a) * math.fsum(float(y) ** 2 for y in b))


def by_the_protocol(query, gallery, ignore_camera=False):
    """One query after another: drop junk, sort, walk down the list. Rows are (feature, identity, camera)."""
    averages, hit_at, penalties, absent, same_camera = [], [], [], 0, 0
    for feature, identity, camera in query:
        ranking = []
        for other, other_identity, other_camera in gallery:
            if other_identity == -1:
                continue
            if not ignore_camera and other_identity == identity and other_camera == camera:
                continue
            ranking.append((cosine_distance(feature, other), other_identity == identity))
        ranking.sort(key=lambda pair: pair[0])
        positions = [position + 1 for position, (_, correct) in enumerate(ranking) if correct]
        if not positions:
            if any(other_identity == identity for _, other_identity, _ in gallery):
                same_camera += 1
            else:
                absent += 1
            continue
        precisions = [sum(other <= position for other in positions) / position for position in positions]
        averages.append(sum(precisions) / len(precisions))
        hit_at.append(positions[0])
        penalties.append(len(positions) / positions[-1])
    count = len(averages)
    cmc = [sum(first <= k for first in hit_at) / count for k in range(1, 51)]
    return sum(averages) / count, cmc, sum(penalties) / count, count, absent, same_camera


def world(seed, queries=40, gallery=150, people=12, cameras=3, dim=16):
    """A random problem with junk (-1), distractors (0), a person seen by one camera, people unmatched."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(people + 2, dim))
    query_ids = rng.integers(1, people + 2, queries)
    gallery_ids = rng.integers(-1, people, gallery)
    query_cameras = rng.integers(1, cameras + 1, queries)
    gallery_cameras = rng.integers(1, cameras + 1, gallery)
    query_cameras[query_ids == 1] = gallery_cameras[gallery_ids == 1] = 1
    query = (means[query_ids] + rng.normal(size=(queries, dim))).astype(np.float32)
    gallery_features = (means[gallery_ids] + rng.normal(size=(gallery, dim))).astype(np.float32)
    return query, gallery_features, query_ids, gallery_ids, query_cameras, gallery_cameras


def rows(problem):
    query, gallery, query_ids, gallery_ids, query_cameras, gallery_cameras = problem
    return list(zip(query, query_ids, query_cameras)), list(zip(gallery, gallery_ids, gallery_cameras))


@pytest.mark.parametrize("ignore_camera", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_scores_follow_the_protocol(seed, ignore_camera, monkeypatch):
    monkeypatch.setattr("cion_jax.evaluation.distances.BLOCK_BYTES", 16 * 150 * 4)  # several blocks of queries
    problem = world(seed)
    scores = retrieval_scores(*problem, ignore_camera=ignore_camera)
    mAP, cmc, mINP, queries, absent, same_camera = by_the_protocol(*rows(problem), ignore_camera=ignore_camera)
    np.testing.assert_allclose(scores.mAP, mAP, rtol=1e-12)
    np.testing.assert_allclose(scores.cmc, cmc, rtol=1e-12)
    np.testing.assert_allclose(scores.mINP, mINP, rtol=1e-12)
    assert (scores.queries, scores.absent, scores.same_camera) == (queries, absent, same_camera)
    assert scores.unmatched == 40 - queries
    assert absent > 0 and (same_camera > 0) is not ignore_camera  # the world has both kinds


@pytest.mark.parametrize("seed", range(3))
def test_many_equal_distances_rank_in_gallery_order(seed, monkeypatch):
    monkeypatch.setattr("cion_jax.evaluation.distances.BLOCK_BYTES", 16 * 150 * 4)
    query, gallery, *labels = world(seed)
    corners = [np.sign(features[:, :4]) for features in (query, gallery)]  # products are exact: five distances in all
    scores = retrieval_scores(*corners, *labels)
    mAP, cmc, mINP, *_ = by_the_protocol(*rows((*corners, *labels)))
    np.testing.assert_allclose([scores.mAP, scores.mINP, *scores.cmc], [mAP, mINP, *cmc], rtol=1e-12)


def on_circle(*degrees):
    angles = np.deg2rad(np.array(degrees, np.float64))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def score_line(ids, cameras, query_id=5, query_camera=1, **options):
    """One query at 0 degrees, gallery images at 10, 20, 30, ... degrees: a ranking written by hand."""
    gallery = on_circle(*range(10, 10 * len(ids) + 1, 10))
    return retrieval_scores(
        on_circle(0),
        gallery,
        np.array([query_id]),
        np.array(ids),
        np.array([query_camera]),
        np.array(cameras),
        **options,
    )


def test_a_ranking_scored_by_hand():
    # Junk and the own camera fall out, the distractor stays: wrong, right, wrong, right.
    scores = score_line(ids=[-1, 5, 0, 5, 7, 5], cameras=[2, 1, 2, 2, 1, 3])
    assert scores.mAP == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert scores.mINP == pytest.approx(2 / 4)
    assert scores.cmc[:3].tolist() == [0, 1, 1] and scores.cmc.shape == (50,)
    # with the camera rule off the own-camera image ranks first
    scores = score_line(ids=[-1, 5, 0, 5, 7, 5], cameras=[2, 1, 2, 2, 1, 3], ignore_camera=True, max_rank=2)
    assert scores.mAP == pytest.approx((1 / 1 + 2 / 3 + 3 / 5) / 3) and scores.cmc.tolist() == [1, 1]


@pytest.mark.parametrize("seed", range(3))
def test_average_precision_is_that_of_scikit_learn(seed):
    """Without ties, on distances of the test's own, in float64."""
    query, gallery, query_ids, gallery_ids, *cameras = world(seed)
    scores = retrieval_scores(query, gallery, query_ids, gallery_ids, *cameras)
    for row in np.flatnonzero(~np.isnan(scores.average_precision)):
        own = (gallery_ids == query_ids[row]) & (cameras[1] == cameras[0][row])
        kept = ~own & (gallery_ids != -1)
        likeness = [-cosine_distance(query[row], other) for other in gallery[kept]]
        expected = average_precision_score(gallery_ids[kept] == query_ids[row], likeness)
        assert scores.average_precision[row] == pytest.approx(expected, abs=1e-6)
    assert np.isnan(scores.average_precision).sum() == scores.unmatched
    assert np.nanmean(scores.average_precision) == pytest.approx(scores.mAP)


def test_cameras_may_be_names_and_a_perfect_ranking_scores_one():
    scores = score_line(ids=[5, 5, 6], cameras=["b", "c", "a"], query_camera="a")
    assert (scores.mAP, scores.mINP, scores.cmc[0]) == (1, 1, 1)


def test_equal_distances_rank_in_gallery_order():
    features = on_circle(10, 30, 30, 30, 50)
    ids = np.array([7, 6, 5, 6, 5])
    scores = retrieval_scores(on_circle(0), features, np.array([5]), ids, np.array([1]), np.array([2, 2, 2, 2, 2]))
    assert scores.mAP == pytest.approx((1 / 3 + 2 / 5) / 2)


def test_match_ranks_equal_those_of_a_stable_sort():
    rng = np.random.default_rng(0)
    for _ in range(50):
        distances = rng.integers(0, 12, 40).astype(np.float32)  # many ties
        matches, left_out = np.split(rng.permutation(40)[:14], [9])
        order = sorted(set(range(40)) - set(left_out), key=lambda index: (distances[index], index))
        expected = sorted(order.index(match) + 1 for match in matches)
        assert match_ranks(distances, Related(matches, left_out)).tolist() == expected


def test_scores_ignore_the_length_of_features():
    problem = world(1)
    lengths = np.random.default_rng(0).uniform(0.1, 10, (150, 1)).astype(np.float32)
    scaled = (problem[0] * 3, problem[1] * lengths, *problem[2:])
    assert retrieval_scores(*scaled).mAP == pytest.approx(retrieval_scores(*problem).mAP, rel=1e-9)


def test_no_match_at_all_names_the_reason():
    with pytest.raises(ValueError, match=r"1 have matches from their own camera only.*--ignore_camera") as caught:
        score_line(ids=[5, 6], cameras=[1, 1])
    assert "not there" not in str(caught.value)
    with pytest.raises(ValueError, match=r"the identity of 1 is not there$"):
        score_line(ids=[4, 6], cameras=[1, 1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: np.ones((40, 7), np.float32)}, "7 dimensions, gallery features 16"),
        ({0: np.zeros((40, 16), np.float32)}, "query features are not finite or all zero in 40 rows"),
        ({1: np.full((150, 16), np.nan, np.float32)}, "gallery features are not finite.* the first is row 0"),
        ({2: np.ones(39, int)}, r"query: 40 feature rows, identities of shape \(39,\)"),
        ({5: np.ones(2, int)}, r"gallery: 150 feature rows.*cameras of shape \(2,\)"),
        ({0: np.ones((0, 16), np.float32)}, "at least one row"),
    ],
)
def test_inconsistent_input_is_refused(change, message):
    problem = list(world(0))
    for position, value in change.items():
        problem[position] = value
    with pytest.raises(ValueError, match=message):
        retrieval_scores(*problem)


# --- the Market-1501 layout

NAMES = {
    "query": ["0001_c1s1_001051_00.jpg", "0002_c6s3_000010_00.jpg"],
    "bounding_box_test": [
        "0001_c2s1_000301_01.jpg",
        "0000_c3s1_000001_02.jpg",
        "-1_c1s1_000401_03.jpg",
        "0002_c1s1_000001_01.jpg",
        "0001_c12_0033.jpg",
    ],
}


def make_market(root):
    for folder, names in NAMES.items():
        (root / folder).mkdir(parents=True)
        for name in names:
            pixels = np.full((16, 8, 3), 40, np.uint8)
            pixels[..., int(name.split("_")[0]) % 3] = 200
            Image.fromarray(pixels).save(root / folder / name)
        (root / folder / "Thumbs.db").write_bytes(b"")


@pytest.mark.parametrize("place", [".", "market1501", "Market-1501-v15.09.15"])
def test_market1501_is_read_from_any_of_its_roots(tmp_path, place):
    make_market(tmp_path / place)
    query, gallery, _ = read_market1501(tmp_path)
    assert query.ids.tolist() == [1, 2] and query.cameras.tolist() == [1, 6]
    assert gallery.ids.tolist() == [0, 1, 1, 2] and gallery.cameras.tolist() == [3, 12, 2, 1]
    assert [path.rsplit("/", 1)[1] for path in gallery.paths][1] == "0001_c12_0033.jpg"


def test_market1501_refuses(tmp_path):
    with pytest.raises(ValueError, match=r"no query/ beside a bounding_box_test/ in any of .*market1501"):
        read_market1501(tmp_path)
    make_market(tmp_path)
    (tmp_path / "query" / "person.jpg").touch()
    with pytest.raises(ValueError, match=r"1 of 3 file names do not begin with .*'person\.jpg'"):
        read_market1501(tmp_path)
    for path in (tmp_path / "query").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="query: no images of a person"):
        read_market1501(tmp_path)


# --- the evaluate command's library part


class MeanColour(nnx.Module):
    def __call__(self, images):
        return jnp.mean(images, axis=(1, 2))


def test_evaluate_extracts_and_scores_and_counts_broken_images(tmp_path):
    make_market(tmp_path)
    (tmp_path / "bounding_box_test" / "0001_c2s1_000301_01.jpg").write_bytes(b"broken")
    report = command.evaluate(MeanColour(), read_market1501(tmp_path), size=(16, 8))
    # colour is the identity here, so all of the rankings are perfect
    assert (report["mAP"], report["rank1"], report["mINP"]) == (1, 1, 1)
    assert (report["queries"], report["gallery"], report["undecodable"]) == (2, 3, 1)
    text = summary(report)
    assert "mAP 100.0  Rank-1 100.0" in text and "1 images left out: they could not be decoded" in text
    assert "own camera" not in text


@pytest.mark.parametrize(("folder", "side"), [("query", "queries"), ("bounding_box_test", "gallery images")])
def test_a_side_without_decodable_images_is_named(tmp_path, folder, side):
    make_market(tmp_path)
    for path in (tmp_path / folder).glob("*.jpg"):
        path.write_bytes(b"<html>")
    with pytest.raises(ValueError, match=f"none of the {side} can be decoded; the first: .*{folder}.*is a web page"):
        command.evaluate(MeanColour(), read_market1501(tmp_path), size=(16, 8))


# --- figures


def test_contact_sheet_places_images_captions_and_borders(tmp_path):
    for name, colour in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
        Image.new("RGB", (20, 40), colour).save(tmp_path / f"{name}.png")
    red, blue = tmp_path / "red.png", tmp_path / "blue.png"
    contact_sheet(
        [[red, blue, red], [blue]],
        tmp_path / "sheet.png",
        tile=(40, 20),
        captions=["person 1", "person 2"],
        borders=[[None, "lime", None], [None]],
    )
    pixels = np.asarray(Image.open(tmp_path / "sheet.png"))
    is_red, is_blue, is_lime = ((pixels == colour).all(axis=-1) for colour in ((255, 0, 0), (0, 0, 255), (0, 255, 0)))
    assert is_red.sum() == 2 * 40 * 20
    assert is_lime.sum() == 40 * 20 - 34 * 14 and is_blue.sum() == 2 * 40 * 20 - is_lime.sum()
    upper, lower = np.flatnonzero(is_red.any(axis=1)), np.flatnonzero(is_blue[:, :25].any(axis=1))
    assert len(upper) == 40 and lower.min() > upper.max() + 10  # room for the second caption between them


def test_figures_refuse_what_they_cannot_draw(tmp_path):
    with pytest.raises(ValueError, match="at least one image"):
        contact_sheet([[], []], tmp_path / "x.png")
    with pytest.raises(ValueError, match="1 captions for 2 rows"):
        contact_sheet([["a"], ["b"]], tmp_path / "x.png", captions=["one"])
    assert not list(tmp_path.iterdir())


def test_curve_draws_each_line(tmp_path):
    x = np.arange(10)
    curve({"loss": (x, x**2), "teacher": (x, -x)}, tmp_path / "c.png", x_label="step", y_label="loss")
    with Image.open(tmp_path / "c.png") as image:
        colours = np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)
    for colour in ((31, 119, 180), (255, 127, 14)):  # the first two of matplotlib's cycle
        assert (colours == colour).all(axis=1).any()
    assert [path.name for path in tmp_path.iterdir()] == ["c.png"]
