"""The layout of the package: only commands at the top, libraries that import no command, no import circle, and text."""

import ast
import functools
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import cion_jax
from cion_jax.__main__ import COMMANDS, summary_line

ROOT = Path(cion_jax.__file__).parent
DECODED = ("what ", "which ", "how ")  # openings that a reader has to decode


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}
# `python -m` runs a package's __main__, which is the command.
COMMAND_MODULES = {
    name if (name := f"cion_jax.{command}") in MODULES and MODULES[name].name != "__init__.py" else f"{name}.__main__"
    for command in COMMANDS
} | {"cion_jax.__main__"}


@functools.cache
def tree(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


@functools.cache
def imports(name: str) -> frozenset[str]:
    """Modules of the package that a module imports anywhere, in functions too."""
    named = set()
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "cion_jax":
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            named |= {module if module in MODULES else node.module for module in inside}
        elif isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names if alias.name.split(".")[0] == "cion_jax"}
    return frozenset(named - {name, "cion_jax"})


def circle(graph: dict[str, set[str]]) -> list[str]:
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        return error.args[1]
    return []


def test_commands_are_listed_with_a_line_each():
    for command in COMMANDS:
        assert 15 < len(summary_line(command)) < 110, f"{command}: {summary_line(command)!r}"


def test_only_commands_lie_at_the_top_of_the_package():
    at_the_top = {name for name, path in MODULES.items() if path.parent == ROOT and path.name != "__init__.py"}
    assert at_the_top <= COMMAND_MODULES
    assert all("__main__" in MODULES[name].read_text() for name in COMMAND_MODULES)


def test_no_library_imports_a_command():
    wrong = {
        name: used for name in MODULES if name not in COMMAND_MODULES and (used := imports(name) & COMMAND_MODULES)
    }
    assert not wrong


def test_modules_import_each_other_in_one_direction():
    # The package's own __init__ imports lazily and for type checkers only.
    assert not circle({name: set(imports(name)) for name in MODULES if name != "cion_jax"})


def test_packages_import_each_other_in_one_direction():
    packages: dict[str, set[str]] = {}
    for name in MODULES:
        if name != "cion_jax" and name not in COMMAND_MODULES:
            package = name.split(".")[1]
            packages.setdefault(package, set()).update(other.split(".")[1] for other in imports(name))
    assert not circle({package: others - {package} for package, others in packages.items()})


@pytest.mark.parametrize("name", cion_jax.__all__)
def test_public_names_can_be_imported(name):
    assert callable(getattr(cion_jax, name)) and name in cion_jax._HOME


def test_an_unknown_public_name_is_answered_with_the_known_ones():
    with pytest.raises(AttributeError, match=r"no attribute 'creat_model'; its public names are .*create_model"):
        cion_jax.creat_model  # noqa: B018


def test_no_docstring_opens_with_what_which_or_how():
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    wrong = [
        f"{name}: {text.splitlines()[0]}"
        for name in MODULES
        for node in ast.walk(tree(name))
        if isinstance(node, documented) and (text := ast.get_docstring(node)) and text.lower().startswith(DECODED)
    ]
    assert not wrong, f"{len(wrong)} docstrings: {wrong[:10]}"
