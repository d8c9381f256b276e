"""What README shows is what there is."""

import re
from pathlib import Path

import pytest

from cion_jax.models.__main__ import status_table

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_status_table_is_current():
    assert status_table() in README


@pytest.mark.slow
def test_python_examples_run(tmp_path, monkeypatch):
    first, second = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(first, names)
    assert names["embedding"].shape == (2, 2048)
    from cion_jax.conversion import write_weights

    write_weights(names["model"], "ResNet50_IBN.pth")
    exec(second, names)


def test_files_and_commands_that_are_named_exist():
    root = Path(__file__).parent.parent
    for path in re.findall(r"(?:configs|launch|docs)/[\w.]+\.(?:py|sh|png)", README):
        assert (root / path).exists(), path
    for module in re.findall(r"python -m (cion_jax[\w.]*)", README):
        path = root / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module
