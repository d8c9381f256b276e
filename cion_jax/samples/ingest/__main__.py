"""Extracts person crops from videos into a packed image store and a sample table (video, tracklet, frame).

    python -m cion_jax.samples.ingest --videos=DIR --out=OUT                     OpenCV's people detector, ByteTrack
    python -m cion_jax.samples.ingest --videos=DIR --out=OUT --detector=motion   better for fixed cameras
    python -m cion_jax.samples.ingest --videos=DIR --out=OUT --detector=F.onnx   your own detector: best for any video
    python -m cion_jax.samples.ingest --videos=DIR --out=OUT --tracks=DIR        tracklets from MOTChallenge files
    python -m cion_jax.samples.ingest --videos=DIR --out=OUT --shard=3/16        one of 16 calls that split the work

The next step is `python -m cion_jax.main ... --config.data.samples=OUT/samples.parquet --config.data.images=OUT/crops`.
The same command resumes an interrupted run, video by video. Broken videos are reported and skipped. After all calls
with --shard, one call without it merges their results.
"""

import os
from pathlib import Path

from absl import flags

from cion_jax.runtime.commands import run
from cion_jax.runtime.progress import console, progress
from cion_jax.runtime.shards import Shard
from cion_jax.samples.ingest.decoding import find_videos
from cion_jax.samples.ingest.job import gather, ingest_videos, left_out
from cion_jax.samples.ingest.settings import IngestSettings
from cion_jax.samples.ingest.video import CropSettings
from cion_jax.samples.track_flags import define_track_flags, track_options


def main(argv: list[str]) -> None:
    del argv
    values = flags.FLAGS
    videos = find_videos(values.videos)
    settings = _settings(values)
    settings.check()
    out, names = Path(values.out), list(videos)
    shard = Shard.parse(values.shard) if values.shard else None
    mine = [names[row] for row in shard.part(len(names))] if shard else names
    chosen = {name: videos[name] for name in mine}
    broken = ingest_videos(chosen, out, settings, workers=values.workers, progress=progress)
    if broken:
        console.print(left_out(broken, len(mine)), markup=False, highlight=False, soft_wrap=True)
    if shard:
        print(f"Shard {shard}: {len(mine) - len(broken)} of its {len(mine)} videos are done. The same command without")
        print("--shard puts all together when every shard is done.")
        return
    report = gather(names, out, settings, broken, progress=progress)
    print(f"{out / 'samples.parquet'}: {report['crops']:,} crops of {report['tracklets']:,} tracklets, from")
    print(f"{report['frames']:,} frames of {len(names) - len(broken):,} videos; the images are in {out / 'crops'}.")


def _settings(values: flags.FlagValues) -> IngestSettings:
    crops = CropSettings(values.crop_every, values.min_height, values.min_crops)
    tracks = Path(values.tracks) if values.tracks else None
    return IngestSettings(
        values.detector,
        values.person_class,
        values.detect_every,
        tracks,
        crops=crops,
        blur_faces=values.blur_faces,
        **track_options(values),
    )


if __name__ == "__main__":
    flags.DEFINE_string("videos", None, "Folder of videos; those in folders below it count too.", required=True)
    flags.DEFINE_string("out", None, "Folder to write.", required=True)
    flags.DEFINE_string(
        "detector",
        IngestSettings.detector,
        "people: OpenCV's people detector, for any video. motion: "
        "what moves before a fixed camera. Or the path of an ONNX file (cion_jax/samples/ingest/onnx_detector.py).",
    )
    flags.DEFINE_integer(
        "person_class", IngestSettings.person_class, "Class of people in the ONNX file.", lower_bound=0
    )
    flags.DEFINE_integer("detect_every", IngestSettings.detect_every, "Frames between two detections.", lower_bound=1)
    flags.DEFINE_string("tracks", None, "Folder of MOTChallenge result files, <video>.txt, instead of detection.")
    define_track_flags()
    flags.DEFINE_integer("crop_every", CropSettings.every, "Frames from one crop to the next.", lower_bound=1)
    flags.DEFINE_integer(
        "min_height", CropSettings.min_height, "Smaller people are left out; in pixels.", lower_bound=1
    )
    flags.DEFINE_integer("min_crops", CropSettings.min_crops, "Crops of the shortest tracklet kept.", lower_bound=1)
    flags.DEFINE_bool("blur_faces", IngestSettings.blur_faces, "Blur heads, and faces that are found elsewhere.")
    flags.DEFINE_integer("workers", os.cpu_count() or 1, "Processes, each with a video at a time.", lower_bound=1)
    flags.DEFINE_string("shard", None, "i/n: only the i-th, from 0, of n equal parts of the videos.")
    run(main)
