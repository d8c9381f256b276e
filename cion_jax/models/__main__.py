"""The models of ReIDZoo and what is here of each, as a Markdown table: `python -m cion_jax.models`."""

from cion_jax.models.registry import list_models, reidzoo


def status_table() -> str:
    """One row per ReIDZoo model. Ported models match the released ones and convert both ways; see tests."""
    ported = set(list_models())
    lines = [
        "| model | ReIDZoo file | M parameters | GFLOPs | Market-1501 mAP / R1 | ported | converts | trained |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, info in reidzoo().items():
        mark = "yes" if name in ported else "not yet"
        lines.append(
            f"| `{name}` | {info.file} | {info.params_m:.2f} | {info.gflops:.2f} "
            f"| {info.market_map:.1f} / {info.market_rank1:.1f} | {mark} | {mark} | no |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(status_table())
