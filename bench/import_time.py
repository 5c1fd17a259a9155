"""What `import forebay` costs beyond NumPy, in new interpreters. By hand: python bench/import_time.py"""

import os
import statistics
import subprocess
import sys
import tempfile

PROGRAM = """
import sys, time
import numpy
start = time.perf_counter()
import forebay
took = time.perf_counter() - start
assert "torch" not in sys.modules
print(took * 1e3)
"""


def measure_ms(count: int) -> list[float]:
    """Milliseconds in `count` interpreters, after one that compiles the modules, as an installer does."""
    with tempfile.TemporaryDirectory() as compiled:
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = compiled
        command = [sys.executable, "-c", PROGRAM]
        times = [
            float(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
            for _ in range(count + 1)
        ]
    return times[1:]


if __name__ == "__main__":
    figures = measure_ms(15)
    print(f"import forebay: {statistics.median(figures):.1f} ms beyond NumPy", end=" ")
    print(f"({min(figures):.1f}-{max(figures):.1f}, {len(figures)} interpreters)")
