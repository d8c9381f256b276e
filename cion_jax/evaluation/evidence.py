"""Data for retrieval figures, saved during evaluation: of a fixed small size, however large the benchmark."""

import os
from typing import NamedTuple, Self

import numpy as np

from cion_jax.evaluation.benchmark import LabelledImages
from cion_jax.evaluation.distances import cosine_distances, unit_rows
from cion_jax.evaluation.ranking import related_images
from cion_jax.runtime.files import atomic_path

LISTED, LENGTH = 4, 10  # number of best and of worst queries, and length of their ranked lists
PEOPLE, IMAGES_EACH = 15, 30  # whose features are saved; the paper's Fig. 4 shows 15 people


class Evidence(NamedTuple):
    """Ranked lists of the worst and best queries, and the features of a sample of identities.

    Attributes:
        average_precision: `[queries]`, NaN for a query without a match.
        listed: `[n]` indices of queries in ascending order of average precision: first the worst half, then the best.
        listed_paths: `[n]` image files of the listed queries.
        listed_people: `[n]` identities of the listed queries.
        ranked_paths: `[n, length]` top-ranked gallery images.
        ranked_right: `[n, length]` bool, True for images of the query's identity.
        ranked_distances: `[n, length]` cosine distances; infinite past the end of a short gallery.
        features: `[m, dim]` features of images of up to 15 query identities.
        people: `[m]` identities of these images.
    """

    average_precision: np.ndarray
    listed: np.ndarray
    listed_paths: np.ndarray
    listed_people: np.ndarray
    ranked_paths: np.ndarray
    ranked_right: np.ndarray
    ranked_distances: np.ndarray
    features: np.ndarray
    people: np.ndarray

    def save(self, path: str | os.PathLike) -> None:
        """Writes the fields to an `.npz` file, atomically."""
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **self._asdict())

    @classmethod
    def load(cls, path: str | os.PathLike) -> Self:
        """Reads a file that `save` wrote.

        Raises:
            ValueError: The file is missing or malformed.
        """
        try:
            with np.load(path, allow_pickle=False) as fields:
                return cls(**fields)
        except FileNotFoundError:
            raise ValueError(f"{path}: no such file; evaluation writes it") from None
        except Exception as error:  # NumPy and zipfile raise many types on malformed files
            raise ValueError(f"{path}: not what evaluation writes ({error}); evaluate again") from error


def gather(
    query: LabelledImages,
    gallery: LabelledImages,
    query_features: np.ndarray,
    gallery_features: np.ndarray,
    average_precision: np.ndarray,
    *,
    ignore_camera: bool,
) -> Evidence:
    """Ranks the gallery (features `[rows, dim]`, no junk) for a few queries, as `retrieval_scores` does for all."""
    listed = _worst_and_best(average_precision, query.ids)
    shown = query.select(listed)
    related = related_images(shown.ids, gallery.ids, shown.cameras, gallery.cameras, ignore_camera=ignore_camera)
    distances = np.array(cosine_distances(unit_rows(query_features[listed]), unit_rows(gallery_features)))
    for row, images in zip(distances, related):
        row[images.left_out] = np.inf
    ranked = np.argsort(distances, axis=1, kind="stable")[:, :LENGTH]
    features, people = _sample_people(query.ids, gallery.ids, query_features, gallery_features)
    return Evidence(
        average_precision=average_precision,
        listed=listed,
        listed_paths=np.array(shown.paths),
        listed_people=shown.ids,
        ranked_paths=np.array(gallery.paths)[ranked],
        ranked_right=gallery.ids[ranked] == shown.ids[:, None],
        ranked_distances=np.take_along_axis(distances, ranked, axis=1),
        features=features,
        people=people,
    )


def _worst_and_best(average_precision: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Queries with the lowest and highest average precision, ascending; one per identity within either half."""
    scored = np.flatnonzero(np.isfinite(average_precision))
    ascending = scored[np.argsort(average_precision[scored], kind="stable")]
    worst = _first_per_person(ascending, ids)[:LISTED]
    best = _first_per_person(ascending[::-1], ids)[:LISTED]
    return np.concatenate([worst, best[~np.isin(best, worst)][::-1]])


def _first_per_person(queries: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """First query of each person, in the given order."""
    return queries[np.sort(np.unique(ids[queries], return_index=True)[1])]


def _sample_people(
    query_ids: np.ndarray, gallery_ids: np.ndarray, query_features: np.ndarray, gallery_features: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Features and identities of sampled images; sampling uses only the labels, so it is the same for any network."""
    random = np.random.default_rng(0)
    known = np.unique(query_ids)
    drawn = random.choice(known, min(PEOPLE, len(known)), replace=False)
    ids = np.concatenate([query_ids, gallery_ids])
    rows = np.concatenate([random.permutation(np.flatnonzero(ids == person))[:IMAGES_EACH] for person in drawn])
    of_query = rows < len(query_ids)
    features = np.concatenate([query_features[rows[of_query]], gallery_features[rows[~of_query] - len(query_ids)]])
    return features, np.concatenate([ids[rows[of_query]], ids[rows[~of_query]]])
