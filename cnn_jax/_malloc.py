"""The memory allocator of this process."""

import ctypes
import sys

# Parameters of mallopt(3), and what they are set to: map only what is larger than a gigabyte, never trim, grow by a
# quarter of a gigabyte, and one arena for all threads (arrays do not fit into the others, and would be mapped).
SETTINGS = {-3: 2**30, -1: -1, -2: 2**28, -8: 1}


def keep_freed_memory() -> bool:
    """Tells glibc to keep freed buffers for the next step instead of handing them back to the system.

    Otherwise every large array of a training step on the CPU is mapped anew and each of its pages faults in again,
    which takes about half of the step. Call it once in a script, before the first computation; the process then stays
    at its peak of memory. Returns False and changes nothing where there is no glibc (macOS, Windows, musl).

    >>> isinstance(keep_freed_memory(), bool)
    True
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    done = [mallopt(parameter, value) for parameter, value in SETTINGS.items()]
    return all(done)
