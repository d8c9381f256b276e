"""Prints the status of every ReIDZoo model as a Markdown table: `python -m cion_jax.models`."""

from cion_jax.models.registry import ModelInfo, list_models, reidzoo

COLUMNS = {
    "model": lambda info: f"`{info.name}`",
    "ReIDZoo file": lambda info: info.file,
    "M parameters": lambda info: f"{info.params_m:.2f}",
    "GFLOPs: paper": lambda info: f"{info.gflops:.2f}",
    "XLA": lambda info: f"{info.xla_gflops:.2f}",
    "Market-1501 mAP / R1": lambda info: f"{info.market_map:.1f} / {info.market_rank1:.1f}",
    "MSMT17 mAP / R1": lambda info: f"{info.msmt_map:.1f} / {info.msmt_rank1:.1f}",
    "ported": lambda info: "yes" if info.name in list_models() else "no",
    "parity": lambda info: f"{info.parity:.0e}",
    "converts": lambda info: "both ways",
    "fuses": lambda info: "yes" if _has_batch_norm(info) else "-",
    "trained": lambda info: "no",
}


def status_table() -> str:
    """Markdown table of all ReIDZoo models, one row each; tests check its claims for every model."""
    rows = [[cell(info) for cell in COLUMNS.values()] for info in reidzoo().values()]
    return "\n".join(f"| {' | '.join(row)} |" for row in [list(COLUMNS), ["---"] * len(COLUMNS), *rows])


def _has_batch_norm(info: ModelInfo) -> bool:
    """True if there is batch normalisation to fold. The released training wraps exactly these models in a module."""
    return info.prefix.startswith("module.")


if __name__ == "__main__":
    print(status_table())
