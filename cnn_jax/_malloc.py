"""The memory allocator of this process."""

import ctypes
import sys

# Parameters of mallopt(3).
M_TRIM_THRESHOLD = -1
M_TOP_PAD = -2
M_MMAP_THRESHOLD = -3

SETTINGS = {
    M_MMAP_THRESHOLD: 2**30,  # bytes; smaller buffers come from the heap, where freed pages stay mapped
    M_TRIM_THRESHOLD: -1,  # never shrink the heap
    M_TOP_PAD: 2**28,  # bytes by which the heap grows
}


def keep_freed_memory() -> bool:
    """Tells glibc's allocator to keep freed buffers for later allocations instead of returning them to the system.

    Returns:
      Whether the settings were made. False where there is no glibc (macOS, Windows, musl); nothing is changed there.

    Notes:
      They hold for the heap of the first thread. Those of other threads have at most 64 MB, so that larger arrays are
      mapped; one heap for all threads makes them wait for each other.

    Source: mallopt(3), https://man7.org/linux/man-pages/man3/mallopt.3.html.

    >>> isinstance(keep_freed_memory(), bool)
    True
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    succeeded = [mallopt(parameter, value) for parameter, value in SETTINGS.items()]
    return all(succeeded)
