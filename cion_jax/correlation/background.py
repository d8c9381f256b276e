"""Identities that show no person, found without labels.

A tracker's box slips off its person for an image or two, and the image shows background. Eq. 4 removes it from its
tracklet, Eq. 5 adds it to some tracklet of background, and closure connects these across videos: one of the largest
identities shows nobody. A person's identity has most images of each tracklet that it draws on. That of the background
has a few images of many tracklets, which is how it is recognised.
"""

import dataclasses

import numpy as np

from cion_jax.correlation.closure import numbered

FEWEST_TRACKLETS = 5  # that an identity draws on; of fewer, an identity switch alone explains a small share
LARGEST_SHARE = 0.45  # of the images of these tracklets; measured on the rendered street: see docs/bootstrap.md


@dataclasses.dataclass(frozen=True)
class Background:
    """Identities that show no person.

    Attributes:
        identities: `[k]`, ascending.
        rows: `[n]` bool, their images.
    """

    identities: np.ndarray
    rows: np.ndarray

    def dropped(self, identities: np.ndarray) -> np.ndarray:
        """`identities` `[n]` with those of the background discarded (-1), numbered by their first row."""
        return numbered(np.where(self.rows, -1, identities))


def find_background(identities: np.ndarray, tracklets: np.ndarray) -> Background:
    """Finds identities that have few images of many tracklets.

        share_k = |k| / |union of the tracklets that have an image in k| <= LARGEST_SHARE,  at least FEWEST_TRACKLETS

    Objects that are tracked as a whole, and so have whole tracklets, are not found.

    Args:
        identities: `[n]` integers, -1 = discarded.
        tracklets: `[n]` integers from 0 on, as the tracker gave them.
    """
    kept = identities >= 0
    drawn = np.unique(np.stack([identities[kept], tracklets[kept]]), axis=1)  # pairs of an identity and a tracklet
    count = int(identities.max(initial=-1)) + 1
    origins = np.bincount(drawn[0], minlength=count)
    available = np.bincount(drawn[0], np.bincount(tracklets)[drawn[1]], minlength=count)
    share = np.bincount(identities[kept], minlength=count) / np.maximum(available, 1)
    found = np.flatnonzero((origins >= FEWEST_TRACKLETS) & (share <= LARGEST_SHARE))
    return Background(found, np.isin(identities, found) & kept)
