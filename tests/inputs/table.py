"""Runs the catalogue of inputs, and writes docs/inputs.md.

python tests/inputs/table.py               writes the page
python tests/inputs/table.py --only WORD   runs the inputs with WORD in their titles, and prints what they show
python tests/inputs/table.py --json PATH   runs all, and writes what was seen instead of the page
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # a spawned worker imports this file, too, and needs none of it
    here = Path(__file__).resolve().parent
    sys.path[:0] = [str(here), str(here.parent), str(here.parent / "torch_front")]
    from page import main

    sys.exit(main())
