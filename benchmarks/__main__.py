"""Everything that can be measured on this machine, one table after the other: python -m benchmarks [--out=results.md]

Runs every benchmark in a process of its own with its defaults, which are the recipe's sizes in bfloat16 on a GPU and
small ones on a CPU; some two hours on two cores. With a GPU all its programs are run, each measured time beside its
bound (`benchmarks.gpu`); without one, but with JAX's CUDA plugin, the training steps are compiled for an H200. The
tables go to `--out` as they come. A benchmark that fails is named there with its last line, and the others go on.
"""

import importlib.util
import subprocess
import sys
import time
from pathlib import Path

from absl import app, flags

RUNS = (
    *(("step", f"--model={model}") for model in ("vit_base", "resnet50_ibn", "convnext_base")),
    ("step", "--method=supervised", "--model=vit_base"),
    ("step", "--method=mgn", "--model=resnet50"),
    ("step", "--method=cluster_contrast", "--model=resnet50"),
    ("zoo",),
    ("correlation",),
    ("correlation", "--images=30000", "--half_width=all"),
    ("evaluation",),
    ("evaluation", "--rerank"),
    ("clustering",),
    ("packing",),
)


def gpu_runs() -> list[tuple[str, ...]]:
    """The runs of `benchmarks.gpu` here. JAX is not asked: this process would take the GPU's memory."""
    if any(Path("/dev").glob("nvidia[0-9]*")):
        return [("gpu",)]
    return [("gpu", "--card=h200", "--programs=step")] if importlib.util.find_spec("jax_cuda12_plugin") else []


def main(argv: list[str]) -> None:
    del argv
    failed, runs = 0, [*gpu_runs(), *RUNS]
    with Path(flags.FLAGS.out).open("a", encoding="utf-8") as out:
        for name, *arguments in runs:
            started = time.monotonic()
            command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            seconds = time.monotonic() - started
            table = done.stdout
            if done.returncode:
                failed += 1
                table += f"\nfailed: {(done.stderr.strip().splitlines() or ['without a word'])[-1]}\n"
            text = f"## {' '.join([name, *arguments])} ({seconds:.0f} s)\n\n{table}\n"
            out.write(text)
            out.flush()
            print(text, flush=True)
    if failed:
        sys.exit(f"{failed} of {len(runs)} benchmarks failed; {flags.FLAGS.out} says how")


if __name__ == "__main__":
    flags.DEFINE_string("out", "results.md", "File that tables are added to.")
    app.run(main)
