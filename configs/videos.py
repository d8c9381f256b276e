"""Finds identities across a folder of videos and writes a report. Needs `pip install -r requirements-ingest.txt`.

    python -m cion_jax.main --config=configs/videos.py --workdir=runs/mine --config.ingest.videos=VIDEOS \
        --config.extractor.weights=ViT_Base.pth [--config.ingest.tracks=TRACKS] [--config.ingest.detector=motion]

The thresholds are the paper's, chosen for the paper's extractor; for another one, `cion_jax.correlate --calibrate`
proposes its own. To train on the identities as well, add stages:

    --config.stages="('ingest','extract','correlate','pretrain','export')".
"""

from ml_collections import ConfigDict

from cion_jax.configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.stages = ("ingest", "extract", "correlate")
    return config
