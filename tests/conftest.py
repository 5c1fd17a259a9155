"""What every test may rely on: one hypothesis profile, both fronts, streams left as they were."""

import random
import signal
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from support import Front, Gate, Wire, front_named

# The same examples in every run; and a busy machine is no failure of a law.
settings.register_profile("patient", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


# A shell that runs the tests in the background has them ignore Ctrl-C, and every process of theirs would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=["numpy", "torch"])
def front(request: pytest.FixtureRequest) -> Front:
    """A law that holds for both fronts runs once for each."""
    return front_named(request.param)


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Holds workers back until the test opens it; at the latest when the test ends."""
    made = Gate()
    yield made
    made.open()
    made.close()


@pytest.fixture
def wire() -> Iterator[Wire]:
    """Numbers from workers to the test."""
    made = Wire()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def restored_streams() -> Iterator[None]:
    """Leaves the global streams of `random`, NumPy and torch as the test found them."""
    torch = sys.modules.get("torch")
    python, legacy, tensors = random.getstate(), np.random.get_state(), torch and torch.get_rng_state()
    yield
    random.setstate(python)
    np.random.set_state(legacy)
    if torch is not None:
        torch.set_rng_state(tensors)
