"""The catalogue takes its values from the torch front's samples."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "torch_front"))
