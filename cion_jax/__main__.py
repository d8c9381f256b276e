"""Lists all commands of the package, one line each: python -m cion_jax"""

import ast
from importlib import resources

# In the order in which they are used.
COMMANDS = (
    "main",
    "samples.ingest",
    "samples.read",
    "samples.doctor",
    "pack",
    "extract",
    "join",
    "extractor",
    "correlate",
    "search",
    "pretrain",
    "finetune",
    "evaluate",
    "experiments",
    "report",
    "convert",
    "models",
    "street",
)


def summary_line(command: str) -> str:
    """The first sentence of a command's docstring, read without importing the command."""
    *packages, name = command.split(".")
    folder = resources.files("cion_jax").joinpath(*packages)
    file = folder.joinpath(f"{name}.py")
    source = file if file.is_file() else folder.joinpath(name, "__main__.py")
    paragraph = (ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or "").split("\n\n")[0]
    return " ".join(paragraph.split("python -m")[0].split()).rstrip(" :`.")


if __name__ == "__main__":
    width = max(map(len, COMMANDS))
    print("Commands; python -m cion_jax.COMMAND --help explains one.\n")
    for command in COMMANDS:
        print(f"  {command:<{width}}  {summary_line(command)}")
