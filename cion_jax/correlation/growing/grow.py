"""Growing and shrinking a correlation in memory."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from cion_jax.correlation import checks, covisible, cross_video, rules
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
    frame_ids: np.ndarray | None,
    settings: Mapping[str, Any],
    track: Track,
) -> Grown:
    """Adds groups to a state; compares the added ones with all in their sliding range, and old ones never twice.

    Args:
        kept: The earlier state, less what was removed (`State.without`).
        added: Groups after Eq. 6 of images of videos that `kept` does not have; None adds nothing, and only
            the closure is computed again.
        features: `[n, d]`, of the kept images and then the added ones.
        frame_ids: `[n]`, as `covisible.number_frames` gives them; None if frames are not known.
        settings: Those of the earlier run: `half_width`, `sigma_drm`, `forbid_covisible`, `rule`, `neighbors`.
        track: Progress over the tiles of pairs.
    """
    groups = kept.groups if added is None else kept.extended(added)
    half_width = checks.reach(settings["half_width"])
    fresh, compared = cross_video.link_added(groups, kept.places, features, half_width, settings["sigma_drm"], track)
    if settings["forbid_covisible"]:
        assert frame_ids is not None
        fresh = fresh[~covisible.joined(frame_ids, groups.assigned, fresh)]
    links = np.concatenate([kept.links, fresh])
    links = links[np.lexsort((links[:, 1], links[:, 0]))]
    group = rules.identities(settings["rule"], groups, links, features, frame_ids, settings["neighbors"])
    found = numbered(groups.merged(group, final=True).assigned)
    return Grown(State(groups, links, np.arange(len(groups.sums))), found, compared, len(fresh))
