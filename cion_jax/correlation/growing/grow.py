"""Growing and shrinking a correlation in memory."""

from typing import NamedTuple

import numpy as np

from cion_jax.correlation import covisible, cross_video
from cion_jax.correlation.closure import numbered
from cion_jax.correlation.engine.centroids import Groups
from cion_jax.correlation.engine.sharding import Track
from cion_jax.correlation.growing.state import State
from cion_jax.runtime.arrays import RowArray


class Grown(NamedTuple):
    """A correlation after it has grown.

    Attributes:
        state: Equal to the state of a run from scratch over the images that were kept and, after them, the added ones.
        identities: `[n]`, of these images, numbered by first row, -1 = discarded.
        compared: Number of pairs of groups that were compared.
        links_added: Number of links found among them.
    """

    state: State
    identities: np.ndarray
    compared: int
    links_added: int


def grow(
    kept: State,
    added: Groups | None,
    features: RowArray,
    *,
    half_width: int | None,
    sigma_drm: float,
    track: Track,
    added_frames: np.ndarray | None = None,
) -> Grown:
    """Adds groups to a state; compares the added ones with all in their sliding range, and old ones never twice.

    Args:
        kept: The earlier state, less what was removed (`State.without`).
        added: Groups after Eq. 6 of images of videos that `kept` does not have; None only closes the links anew.
        features: `[n, d]`, of the kept images and then the added ones.
        half_width, sigma_drm: As for `correlate`, the same as in the earlier run.
        track: Progress over the tiles of pairs.
        added_frames: `[added images]`, as `covisible.number_frames` gives them: links between groups that share a
            frame are left out (as with `forbid_covisible`). Old images share none with those of other videos.
    """
    groups = kept.groups if added is None else kept.extended(added)
    fresh, compared = cross_video.link_added(groups, kept.places, features, half_width, sigma_drm, track)
    if added is not None and added_frames is not None:
        fresh = _without_covisible(fresh, len(kept.groups.sums), added, added_frames)
    links = np.concatenate([kept.links, fresh])
    links = links[np.lexsort((links[:, 1], links[:, 0]))]
    identities = numbered(groups.merged(links, final=True).assigned)
    return Grown(State(groups, links, np.arange(len(groups.sums))), identities, compared, len(fresh))


def _without_covisible(links: np.ndarray, old: int, added: Groups, frames: np.ndarray) -> np.ndarray:
    """Leaves out links between added groups, numbered from `old` on, that share a frame."""
    among_added = np.flatnonzero((links >= old).all(1))
    wrong = covisible.joined(frames, added.assigned, links[among_added] - old)
    return np.delete(links, among_added[wrong], axis=0)
