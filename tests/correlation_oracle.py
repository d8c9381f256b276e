"""Independent float64 oracle for Eq. 1-7, in plain loops; shares no code with `cion_jax`, its reference included.

Every decision compares a distance with a threshold or with another distance. `Oracle.margin` is the narrowest
such comparison of a run: where it is wide, a float32 program must produce the same identities.
"""

import numpy as np

TIE = 1e-9  # float64: closer than this are equal
WIDE = 2e-5  # decisions this far apart come out the same in float32 and float64
DIM = 8  # of the features of worlds


def dist(a, b):
    return 1 - float(np.dot(a, b)) / (np.linalg.norm(a) * np.linalg.norm(b))


class Oracle:
    """Runs all levels on construction; `identities[level]` is the result `[n]` of each."""

    def __init__(self, features, videos, tracklets, sigma_cst, sigma_drm, half_width):
        self.features = np.asarray(features, np.float64)
        self.features /= np.linalg.norm(self.features, axis=1, keepdims=True)
        self.sigma_cst, self.sigma_drm = sigma_cst, sigma_drm
        self.margin = np.inf
        rows_of = {}
        for row, name in enumerate(tracklets):
            rows_of.setdefault(name, []).append(row)
        first_rows = {name: rows[0] for name, rows in rows_of.items()}
        video_of = {name: videos[rows[0]] for name, rows in rows_of.items()}
        video_order = list(dict.fromkeys(videos))

        kept, excluded = {}, {}
        for name, rows in rows_of.items():
            kept[name], excluded[name] = self.single_tracklet(rows)
        merged = []
        for video in video_order:
            names = [name for name in rows_of if video_of[name] == video]
            members = self.reallocate(names, kept, excluded)
            for part in self.components(names, [members[name] for name in names], None):
                group = [row for name in part for row in members[name]]
                merged.append((video_order.index(video), min(first_rows[name] for name in part), group))
        sequence = [group for _, _, group in sorted(merged, key=lambda entry: entry[:2])]
        people = [
            [row for place in part for row in sequence[place]]
            for part in self.components(range(len(sequence)), sequence, half_width)
        ]
        stages = [list(rows_of.values()), list(kept.values()), sequence, people]
        self.identities = [self.numbers(groups) for groups in stages]

    def note(self, value, threshold):
        self.margin = min(self.margin, abs(value - threshold))

    def mean(self, rows):
        return np.mean([self.features[row] for row in rows], axis=0)

    def extreme(self, values, largest):
        """Index of the largest (smallest) value, the first of those that tie."""
        best = max(values) if largest else min(values)
        for value in values:
            if abs(value - best) > TIE:
                self.note(value, best)
        return next(index for index, value in enumerate(values) if abs(value - best) <= TIE)

    def single_tracklet(self, rows):
        """Eq. 4."""
        kept, excluded = list(rows), []
        while len(kept) > 1:
            away = [dist(self.features[row], self.mean([k for k in kept if k != row])) for row in kept]
            worst = self.extreme(away, largest=True)
            self.note(away[worst], self.sigma_cst)
            if away[worst] < self.sigma_cst:
                break
            excluded.append(kept.pop(worst))
        return kept, excluded

    def reallocate(self, names, kept, excluded):
        """Eq. 5, in one video."""
        centroid = {name: self.mean(kept[name]) for name in names}
        members = {name: list(kept[name]) for name in names}
        for own in names:
            others = [name for name in names if name != own]
            for row in excluded[own] if others else []:
                away = [dist(self.features[row], centroid[name]) for name in others]
                nearest = self.extreme(away, largest=False)
                self.note(away[nearest], self.sigma_cst)
                if away[nearest] < self.sigma_cst:
                    members[others[nearest]].append(row)
        return members

    def components(self, names, groups, half_width):
        """Eq. 6 and 7: links between groups at most half_width apart, closed transitively by flooding."""
        names = list(names)
        centroids = [self.mean(rows) for rows in groups]
        linked = {index: [] for index in range(len(names))}
        for i in range(len(names)):
            for j in range(len(names)):
                if i != j and (half_width is None or abs(i - j) <= half_width):
                    away = dist(centroids[i], centroids[j])
                    self.note(away, self.sigma_drm)
                    if away <= self.sigma_drm:
                        linked[i].append(j)
        parts, seen = [], set()
        for start in range(len(names)):
            part, frontier = [], [start]
            while frontier:
                here = frontier.pop()
                if here not in seen:
                    seen.add(here)
                    part.append(here)
                    frontier += linked[here]
            if part:
                parts.append([names[index] for index in sorted(part)])
        return parts

    def numbers(self, groups):
        """Identities by first row, -1 for rows in no group."""
        identities = np.full(len(self.features), -1)
        for number, rows in enumerate(sorted(sorted(rows) for rows in groups)):
            identities[rows] = number
        return identities


def make_world(seed, images=40, videos=3, tracklets=5, people=4, spread=0.45):
    """A flawed tracker's `(features, videos, tracklets)`: a tracklet is mostly of one person."""
    random = np.random.default_rng(seed)
    person = random.normal(size=(people, DIM))
    person /= np.linalg.norm(person, axis=1, keepdims=True)
    video = random.integers(0, videos, images)
    track = video * tracklets + random.integers(0, tracklets, images)
    followed = random.integers(0, people, videos * tracklets)[track]
    shown = np.where(random.random(images) < 0.85, followed, random.integers(0, people, images))
    features = person[shown] + random.normal(size=(images, DIM)) * spread / DIM**0.5
    features *= random.uniform(0.5, 2, (images, 1))  # lengths must not matter
    return features.astype(np.float32), video, track


def wide_world(seed, half_width=None, **shape):
    """The first world from `seed` on in which no decision is close, and the oracle's run on it."""
    for attempt in range(seed, seed + 1000):
        world = make_world(attempt, **shape)
        oracle = Oracle(*world, 0.2, 0.18, half_width)
        if oracle.margin > WIDE:
            return world, oracle
    raise AssertionError("no world without close decisions")


def noise_oracle(features, identities, sigma_cst, sigma_drm):
    """Eq. 1-3: (n_S, its consistency part, its discrimination part, narrowest decision)."""
    features = np.asarray(features, np.float64)
    features = features / np.linalg.norm(features, axis=1, keepdims=True)
    names = [name for name in dict.fromkeys(identities.tolist()) if name != -1]
    centroids = {name: features[identities == name].mean(0) for name in names}
    margin, scattered, close = np.inf, 0, 0
    for name in names:
        radius = max(dist(x, centroids[name]) for x in features[identities == name])
        margin = min(margin, abs(radius - sigma_cst))
        scattered += radius >= sigma_cst
        for other in names:
            if other != name:
                away = dist(centroids[name], centroids[other])
                margin = min(margin, abs(away - sigma_drm))
                close += away <= sigma_drm
    return (scattered + close) / len(names), scattered / len(names), close / len(names), margin
