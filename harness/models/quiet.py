"""Libraries that talk while they work, silenced: the command line has its own words."""

from __future__ import annotations

import os


def quiet_transformers() -> None:
    """No progress bars and no advice from transformers; its errors still arrive as exceptions."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def quiet_profiler() -> None:
    """No lines on stderr from torch's profiler; it reads the variable when torch is imported."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
