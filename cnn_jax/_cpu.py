"""Settings of this process for computing on the CPU."""

import functools
import os

import jax
from jaxlib.version import __version__ as jaxlib_version

from ._malloc import keep_freed_memory

# Of XLA. With its own settings some programs are wrong: tests/test_wrong_programs.py.
FLAGS = {"--xla_cpu_experimental_ynn_fusion_type": ""}
# XLA ends the process for a flag that it does not know.
JAXLIB_WITH_FLAGS = ("0.10.", "0.11.", "0.12.")
ASYNC_VARIABLE = "JAX_CPU_ENABLE_ASYNC_DISPATCH"  # how JAX reads that setting from the environment


def configure_cpu() -> None:
    """Sets what makes JAX right and fast on the CPU.

    Call it once in a script, before JAX's first computation. It changes the whole process, and the flags also those
    that the process starts. Other devices are not affected.

    Raises:
      RuntimeError: JAX has computed before, and so has read its settings.

    Notes:
      XLA's flag `xla_cpu_experimental_ynn_fusion_type` becomes empty, unless XLA_FLAGS has it: XLA then leaves nothing
      to the library YNNPACK. By default it leaves sums and products there, with what surrounds them, and some programs
      are wrong: in jaxlib 0.10.2 the last of 32,769 squared norms under `jax.vmap`
      (https://github.com/jax-ml/jax/issues/39103), and sums of arrays of rank 7, which end the process
      (https://github.com/jax-ml/jax/issues/40412). By default jaxlib 0.10 also computes convolutions of many channels
      on one core. Nothing is set for a jaxlib later than 0.12, which may not know it.

      `jax_cpu_enable_async_dispatch` becomes False: a call computes in the thread that makes it, and Python waits. A
      call of a small network is faster without another thread, and large arrays come from that thread's heap.

      glibc's allocator keeps the memory that is freed. Otherwise each large array of a training step is mapped again,
      and each of its pages faults in again, which takes up to half of the step. The process stays at its peak of
      memory. Nothing is changed where there is no glibc (macOS, Windows, musl).

      `python -m experiments.cpu_settings` compares these settings with others.

    >>> import jax.numpy as jnp
    >>> configure_cpu()
    >>> jnp.arange(3).sum()
    Array(3, dtype=int32)
    """
    _configure()


@functools.cache
def _configure() -> None:
    given = os.environ.get("XLA_FLAGS", "").strip()
    missing = [f"{name}={value}" for name, value in FLAGS.items() if name not in given]
    flags = " ".join([given, *missing] if jaxlib_version.startswith(JAXLIB_WITH_FLAGS) else [given]).strip()
    is_synchronous = os.environ.get(ASYNC_VARIABLE, "").lower() in ("0", "false")
    if _jax_has_started() and not (flags == given and is_synchronous):
        raise RuntimeError(
            "configure_cpu: expected a call before JAX's first computation, which has read the settings; call it "
            f"first, or start Python with {ASYNC_VARIABLE}=false XLA_FLAGS={flags!r}"
        )
    os.environ["XLA_FLAGS"] = flags
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    keep_freed_memory()


def _jax_has_started() -> bool:
    """Whether JAX has made its devices: it then refuses another number of them."""
    devices = jax.config.values["jax_num_cpu_devices"]
    try:
        jax.config.update("jax_num_cpu_devices", devices + 2)
    except RuntimeError:
        return True
    jax.config.update("jax_num_cpu_devices", devices)
    return False
