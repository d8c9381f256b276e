"""From a folder of videos to identities across them, and a report. Needs `pip install -r requirements-ingest.txt`.

    python -m cion_jax.main --config=configs/videos.py --workdir=runs/mine --config.ingest.videos=VIDEOS \
        --config.extractor.weights=ViT_Base.pth [--config.ingest.tracks=TRACKS] [--config.ingest.detector=motion]

The thresholds are the paper's, for the paper's extractor; `cion_jax.correlate --calibrate` finds those of another. To
train on what was found, add the stages: --config.stages="('ingest','extract','correlate','pretrain','export')".
"""

from ml_collections import ConfigDict

from cion_jax.configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.stages = ("ingest", "extract", "correlate")
    return config
