"""The released fine-tuning code, by what its loaders strip from a key.

They take the entries of "teacher" whose key contains "backbone", and cut off as many characters as the prefix has
that ReIDZoo's file of this model should have. Cluster-Contrast cuts 16 off Swin's too, whose files have 9.
"""

import dataclasses
import fnmatch

WRAPPED, PLAIN = "module.backbone.", "backbone."


@dataclasses.dataclass(frozen=True)
class Loader:
    """One of the released fine-tuning stacks.

    Attributes:
        takes: patterns of the models it has.
        refuses: models that it has not, though a pattern takes them.
        prefix: what its loader strips; None strips what ReIDZoo's files have.
        defects: pattern of models and what goes wrong with them in the released loader, whatever the file.
    """

    takes: tuple[str, ...] = ("*",)
    refuses: tuple[str, ...] = ()
    prefix: str | None = None
    defects: tuple[tuple[str, str], ...] = ()


_NO_FC = "skips every key with 'fc' in it, so the MLPs of a Swin keep their random weights; repair it before use"

LOADERS = {
    "reidzoo": Loader(),
    "transreid": Loader(),
    "fastreid": Loader(takes=("resnet*",), prefix=WRAPPED),
    "cluster-contrast": Loader(
        takes=("resnet*", "vit_*", "swin_*"),
        refuses=("resnet18_ibn",),
        prefix=WRAPPED,
        defects=(("swin_*", _NO_FC),),
    ),
}


def loader_prefix(loader: str, model: str, released: str) -> str:
    """The prefix that `loader` expects on the keys of `model`; `released` is that of ReIDZoo's file.

    Raises:
        ValueError: no such loader, or it has no such model.
    """
    if loader not in LOADERS:
        raise ValueError(f"--for={loader} is unknown; choose from {', '.join(LOADERS)}")
    entry = LOADERS[loader]
    if model in entry.refuses or not _matches(model, entry.takes):
        but = f" except {', '.join(entry.refuses)}" if entry.refuses else ""
        raise ValueError(f"the released {loader} code has no {model}; it has {', '.join(entry.takes)}{but}")
    return entry.prefix or released


def loader_defects(loader: str, model: str) -> list[str]:
    """Known defects of the released `loader` when it reads a valid file of `model`."""
    return [
        f"the released {loader} loader {defect}"
        for pattern, defect in LOADERS[loader].defects
        if fnmatch.fnmatchcase(model, pattern)
    ]


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
