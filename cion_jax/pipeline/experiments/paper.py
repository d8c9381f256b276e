"""Scores that the paper reports after fine-tuning, mAP and Rank-1 in percent."""

from cion_jax.models import model_info

MARKET, MSMT = "market1501", "msmt17"
Scores = tuple[float, float]

# Tables 1 and 4: the method of pre-training with MGN on Market-1501, ResNet50-IBN pre-trained on CION-AL.
TABLE4 = {"moco": (91.4, 96.6), "instance": (90.9, 96.3), "identity": (93.3, 97.3)}
_MGN = {("resnet50_ibn", MARKET): (93.3, 97.3), ("resnet50_ibn", MSMT): (74.3, 89.8)}

# Tables 2 and 6: UDA to Market-1501 and to MSMT17 (each from the other), USL on Market-1501 and on MSMT17.
_CLUSTERS = {
    "resnet50": ((90.6, 96.1), (57.4, 81.3), (90.6, 95.7), (52.5, 78.3)),
    "resnet101": ((93.1, 96.8), (67.6, 86.9), (93.2, 97.0), (64.2, 85.2)),
    "resnet152": ((93.6, 97.0), (70.1, 88.1), (93.3, 97.1), (68.8, 87.6)),
    "resnet50_ibn": ((92.1, 96.5), (62.7, 84.3), (91.4, 96.1), (59.4, 82.4)),
    "resnet101_ibn": ((93.7, 96.8), (70.9, 88.2), (93.8, 96.7), (69.7, 88.2)),
    "resnet152_ibn": ((94.0, 97.1), (73.7, 89.2), (94.3, 97.1), (71.7, 89.0)),
    "vit_tiny": ((88.0, 94.7), (44.3, 69.3), (88.3, 94.5), (43.1, 69.6)),
    "vit_small": ((90.4, 95.6), (58.0, 79.9), (90.6, 95.6), (55.0, 78.4)),
    "vit_base": ((91.1, 95.9), (61.4, 82.9), (91.2, 96.1), (58.9, 82.3)),
}
_COLUMNS = (("uda", MARKET), ("uda", MSMT), ("usl", MARKET), ("usl", MSMT))
UNSUPERVISED = tuple(_CLUSTERS)


def reported(model: str, setting: str, dataset: str) -> Scores | None:
    """The paper's scores of a ReIDZoo model; None where there are none.

    Args:
        model: name of the model.
        setting: "supervised" (Table 3), "mgn" (Table 1), "usl" or "uda" (Tables 2 and 6).
        dataset: "market1501" or "msmt17", the one that is scored.
    """
    if setting == "supervised":
        info = model_info(model)
        return (info.market_map, info.market_rank1) if dataset == MARKET else (info.msmt_map, info.msmt_rank1)
    if setting == "mgn":
        return _MGN.get((model, dataset))
    return dict(zip(_COLUMNS, _CLUSTERS.get(model, ()))).get((setting, dataset))
