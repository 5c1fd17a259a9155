"""What Forebay says about its work: the logger `forebay`, shown on stderr with FOREBAY_LOG=on."""

import logging
import os
import sys

from forebay._configuration import is_switched_on

__all__ = ["is_shown", "logger"]

logger = logging.getLogger("forebay")


class _Stderr(logging.Handler):
    """Writes to what `sys.stderr` is at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        main = os.environ.get("FOREBAY_RUN", str(os.getpid())) == str(os.getpid())
        who = "forebay" if main else f"forebay, process {os.getpid()}"
        try:
            sys.stderr.write(f"[{who}] {self.format(record)}\n")
        except Exception:  # noqa: BLE001 - logging's own way with handlers that fail
            self.handleError(record)


def is_shown() -> bool:
    """Whether the log goes to stderr."""
    return any(isinstance(handler, _Stderr) for handler in logger.handlers)


if is_switched_on("FOREBAY_LOG", default=False):
    logger.addHandler(_Stderr())
    logger.setLevel(logging.INFO)
    logger.propagate = False  # a program that shows its own log would show these lines twice
