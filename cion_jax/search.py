"""Finds the identities and tracklets of a correlated set that are nearest to images of a person.

    python -m cion_jax.search --index=DIR --image=Q.jpg --weights=W --out=FOUND [--images=ROOT] [--top=10]

DIR is the --out of cion_jax.correlate, and W the weights of the extractor of its features. FOUND/matches.json lists the
matches; with --images, the image root of the correlated set, FOUND/matches.png shows them.

Terms of use (Appendix A.3 of the paper, which apply to ReIDZoo and CION-AL): research only. Users must protect the
privacy of all people in the data and are responsible for any misuse; commercial use and redistribution are not allowed.
Search for a person only with their consent or on a legal basis.
"""

from pathlib import Path

from absl import flags

from cion_jax.correlation.growing.index import read_index
from cion_jax.correlation.searching import search
from cion_jax.features.extraction import extract_features
from cion_jax.features.store import check_extractor
from cion_jax.finetuning.extractor import load_extractor
from cion_jax.reporting.search import matches_sheet, print_matches
from cion_jax.runtime.commands import run
from cion_jax.runtime.files import write_json


def main(argv: list[str]) -> None:
    del argv
    values = flags.FLAGS
    made_by = read_index(values.index).extractor
    if made_by is None:
        raise ValueError(
            f"{values.index}: its features have no description of the extractor, so queries cannot be extracted in the "
            f"same way; use cion_jax.correlation.searching.search with features of your own"
        )
    model, about = load_extractor(made_by["model"], values.weights)
    check_extractor(about, made_by, values.weights)
    size, mean, std = (tuple(made_by[name]) for name in ("size", "mean", "std"))
    features = extract_features(model, values.image, size=size, mean=mean, std=std)
    for reason in features.undecodable.values():
        raise ValueError(f"--image: {reason}")
    matches = search(values.index, features.features, top=values.top)
    found = [{"image": image} | match for image, match in zip(values.image, matches, strict=True)]
    print_matches(found)
    out = Path(values.out)
    write_json(out / "matches.json", found)
    if values.images and (skipped := matches_sheet(found, values.images, out / "matches.png")):
        print(f"Contact sheet: {skipped} images are missing or cannot be decoded.")
    print(f"Results: {out}")


if __name__ == "__main__":
    flags.DEFINE_string("index", None, "Folder of a correlated set.", required=True)
    flags.DEFINE_multi_string("image", None, "Image of a person; may be given several times.", required=True)
    flags.DEFINE_string("weights", None, "Weights of the extractor that made the features.", required=True)
    flags.DEFINE_string("out", None, "Folder for the matches.", required=True)
    flags.DEFINE_string("images", None, "Image root of the correlated set, for a contact sheet.")
    flags.DEFINE_integer("top", 10, "Number of identities and of tracklets to list.", lower_bound=1)
    run(main)
