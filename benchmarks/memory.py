"""Peak memory of a measurement."""

import threading
import time
from pathlib import Path


class PeakMemory(threading.Thread):
    """Samples the anonymous resident memory of this process (Linux), in bytes."""

    def __init__(self):
        super().__init__(daemon=True)
        self.peak, self.running = 0, True
        self.start()

    def run(self) -> None:
        while self.running:
            self.peak = max(self.peak, anonymous_bytes())
            time.sleep(0.02)


def anonymous_bytes() -> int:
    """Anonymous resident memory of this process now."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return 1024 * int(line.split()[1])
    raise OSError("/proc/self/status has no RssAnon: this benchmark measures memory on Linux only")
