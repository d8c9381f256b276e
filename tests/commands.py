"""Commands run as a user runs them."""

import subprocess
import sys
from pathlib import Path


def run_command(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
