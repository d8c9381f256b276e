"""Report section with t-SNE maps of a few people's features, before and after training (the paper's Fig. 4)."""

from collections.abc import Mapping

import matplotlib
import numpy as np

from cion_jax.evaluation.evidence import Evidence
from cion_jax.reporting.drawing import chart, svg
from cion_jax.reporting.page import Picture, Pictures, Section, Text

_PERPLEXITY = 30
_MARKERS = "osv^D"


def embedding_section(kept: Mapping[str, Evidence]) -> Section:
    """Maps the features of the same images under several networks by t-SNE (van der Maaten and Hinton, JMLR 2008)."""
    people = len(np.unique(next(iter(kept.values())).people))
    images = len(next(iter(kept.values())).people)
    if not 2 <= people < images:
        raise ValueError(f"{images} images of {people} persons are in the benchmark: too few to draw")
    text = (
        f"{images} images of {people} people, drawn at random from the benchmark. Each point is an image; colour and "
        f"shape show the person. t-SNE keeps nearby features nearby, so good features form one cluster per person. The "
        f"silhouette score compares distances within and between people in the original feature space: 1 is best, 0 "
        f"means that people overlap."
    )
    return Section("t-SNE of features", [Text(text), Pictures([_map(*item) for item in kept.items()])])


def _map(network: str, evidence: Evidence) -> Picture:
    # Imported here: it takes a second, and every worker process would import it too.
    from sklearn.manifold import TSNE
    from sklearn.metrics import silhouette_score
    from threadpoolctl import threadpool_limits

    features, people = evidence.features.astype(np.float32), evidence.people
    count = len(features)
    plane = TSNE(metric="cosine", init="pca", perplexity=min(_PERPLEXITY, (count - 1) / 3), random_state=0)
    with threadpool_limits(1):  # for so few points, synchronising threads costs more than it saves
        points = plane.fit_transform(features)
    silhouette = silhouette_score(features, people, metric="cosine")
    figure, axes = chart("", "", network)
    colours = matplotlib.colormaps["tab10"]
    for number, person in enumerate(np.unique(people)):
        x, y = points[people == person].T
        marker = _MARKERS[number // 10 % len(_MARKERS)]
        axes.scatter(x, y, 14, color=colours(number % 10), marker=marker, alpha=0.8, linewidths=0)
    axes.set(xticks=[], yticks=[])
    axes.spines[["left", "bottom"]].set_visible(False)
    caption = f"Silhouette {silhouette:.2f} (1 is best, 0: people overlap)."
    return Picture(svg(figure), f"t-SNE of features of the network {network}, coloured by person. {caption}", caption)
