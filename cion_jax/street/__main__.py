"""Renders videos of a synthetic street with people walking by, and their ground truth.

python -m cion_jax.street --out=DIR [--videos=4] [--people=30] [--people_per_video=10] [--seed=0]

writes DIR/videos/*.mp4 and DIR/truth/*.txt (MOTChallenge ground truth), for `python -m cion_jax.samples.ingest`.
"""

import os

from absl import flags

from cion_jax.runtime.commands import run
from cion_jax.street.config import street_config
from cion_jax.street.film import film_street
from cion_jax.street.passages import FilmConfig


def main(argv: list[str]) -> None:
    del argv
    values = flags.FLAGS
    config = street_config(
        seed=values.seed,
        crawl_videos=values.videos,
        crawl_people=values.people,
        people_per_video=values.people_per_video,
        co_visible=float(values.co_visible),
    )
    film = FilmConfig(height=values.height, width=values.width, rate=values.rate, seconds=values.seconds)
    film_street(config, values.out, film, values.workers)
    print(f"{values.out}: {values.videos} videos and the truth about them")


if __name__ == "__main__":
    flags.DEFINE_string("out", None, "Folder to write; one that is there is replaced.", required=True)
    flags.DEFINE_integer("videos", 4, "Videos, each of a camera of its own.", lower_bound=1)
    flags.DEFINE_integer("people", 30, "People of the street.", lower_bound=1)
    flags.DEFINE_integer("people_per_video", 10, "How many of them walk through a video.", lower_bound=1)
    flags.DEFINE_float("co_visible", 3.0, "People in view at a time, on average.", lower_bound=0.1)
    flags.DEFINE_float("seconds", FilmConfig.seconds, "Length of a video; 0: as everybody needs.", lower_bound=0)
    flags.DEFINE_integer("height", FilmConfig.height, "Pixels of a frame.", lower_bound=16)
    flags.DEFINE_integer("width", FilmConfig.width, "Pixels of a frame.", lower_bound=16)
    flags.DEFINE_integer("rate", FilmConfig.rate, "Frames per second.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Another street.", lower_bound=0)
    flags.DEFINE_integer("workers", os.cpu_count() or 1, "Processes that render.", lower_bound=1)
    run(main)
