"""Agreement of the processes that share a training run."""

from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

FAILED = -1  # takes the place of a step where a process has an error
HALF_POSITION = 2**31  # positions are exchanged between processes as two 32-bit integers


def assert_same_step(step: int, directory: Path, error: Exception | None = None) -> None:
    """Waits for all processes, then raises this one's error.

    Raises a ValueError if another process has an error, or if the processes found different checkpoints.

    >>> assert_same_step(4, Path("run"))
    """
    steps = {step}
    if jax.process_count() > 1:
        steps = set(multihost_utils.process_allgather(np.int32(FAILED if error else step)).tolist())
    if error is not None:
        raise error
    if FAILED in steps:
        raise ValueError(f"checkpoint_dir: another process cannot use {directory}; its error says why")
    if len(steps) > 1:
        found = f"in {directory} they find checkpoints of different steps {sorted(steps)}"
        raise ValueError(f"checkpoint_dir: expected a directory that all processes share, but {found}")


def gather_positions(position: int | None) -> list[int] | None:
    """The positions of all processes, in their order.

    >>> gather_positions(7)
    [7]
    """
    if position is None or jax.process_count() == 1:
        return None if position is None else [position]
    halves = multihost_utils.process_allgather(np.array(divmod(position, HALF_POSITION), np.int32))
    return [int(high) * HALF_POSITION + int(low) for high, low in halves]
