"""Examples in README and docs/ run; tables, files and commands they name exist."""

import re
from pathlib import Path

import pytest

from cion_jax.models.__main__ import status_table
from cion_jax.samples import SampleTable, write_samples

ROOT = Path(__file__).parent.parent
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in [ROOT / "README.md", *ROOT.glob("docs/*.md")]}
BLOCKS = {name: re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL) for name, text in PAGES.items()}
EXAMPLES = {name: blocks for name, blocks in BLOCKS.items() if blocks}
SLOW = {"README.md"}  # compiles a ResNet-50


def run_examples(page, folder, monkeypatch):
    """Runs a page's Python blocks in order, in one namespace, and returns it."""
    monkeypatch.chdir(folder)
    names = {}
    for block in EXAMPLES[page]:
        exec(block, names)
    return names


def test_status_table_is_current():
    assert status_table() in PAGES["docs/models.md"]


@pytest.mark.slow
def test_readme_examples_run(tmp_path, monkeypatch):
    assert run_examples("README.md", tmp_path, monkeypatch)["embedding"].shape == (2, 2048)


@pytest.mark.parametrize("page", sorted(EXAMPLES.keys() - SLOW))
def test_examples_run(page, tmp_path, monkeypatch):
    if page == "docs/videos.md":
        filmed_street(tmp_path)
    names = run_examples(page, tmp_path, monkeypatch)
    if page == "docs/videos.md":
        assert names["table"]["person"].tolist() == [7]
    if page == "docs/correlation.md":
        assert names["identities"].tolist() == [0, 1, 0, 2]
        assert names["nearest"]["identity"] == 0 and names["nearest"]["videos"] == ["a", "b"]
    if page == "docs/data.md":
        assert names["identities"].tolist() == [0, 0, 0]


def filmed_street(folder):
    """One crop, as `samples.ingest` writes it, and its ground truth."""
    box = {"left": [10], "top": [20], "width": [30], "height": [60]}
    (folder / "motion").mkdir()
    crop = SampleTable.from_columns(file_path=["a.jpg"], video=["a"], tracklet=[1], frame=[1], **box)
    write_samples(crop, folder / "motion/samples.parquet")
    (folder / "street/truth").mkdir(parents=True)
    (folder / "street/truth/a.txt").write_text("1,7,11,21,30,60,1,1,1\n")


@pytest.mark.parametrize("page", PAGES)
def test_files_and_commands_that_are_named_exist(page):
    text = PAGES[page]
    for path in re.findall(r"(?:configs|launch|docs|benchmarks)/[\w.]+\.(?:py|sh|sbatch|png|md)", text):
        assert (ROOT / path).exists(), path
    for target in re.findall(r"\]\(([\w./-]+)\)", text):
        assert ((ROOT / page).parent / target).exists(), target
    for module in re.findall(r"python -m (cion_jax(?:\.\w+)+)", text):
        assert is_command(module), module


def test_the_table_of_commands_is_complete():
    table = PAGES["README.md"].partition("## Commands")[2].partition("\n## ")[0]
    commands = re.findall(r"^\| `([\w.]+) --", table, flags=re.MULTILINE)
    assert len(commands) == 17
    for command in commands:
        assert is_command(f"cion_jax.{command}"), command


def is_command(module):
    path = ROOT / module.replace(".", "/")
    return path.with_suffix(".py").exists() or (path / "__main__.py").exists()


def test_every_page_opens_with_a_sentence_and_has_an_example():
    for name, text in PAGES.items():
        assert re.match(r"# .+\n\n(?!```)[A-Z`][^|#]*?\.\s", text), name
        assert "```bash" in text or name in EXAMPLES, name
