"""Compiling for TPUs and GPUs on a machine that has none, and what is in a compiled program."""

import collections
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Device = Any  # jaxlib's classes of devices that are only described are not public
# libtpu would look for the machine that it runs on, and lock it.
TPU_ENVIRONMENT = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
}
# What XLA asks a card for: the numbers of an H100 with 80 GB; memory_bandwidth in bytes a second.
H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448 shared_memory_per_core: 233472
  registers_per_block_limit: 65536 registers_per_core_limit: 65536
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 device_memory_size: 84929347584
  cuda_compute_capability { major: 9 }
}
runtime_version { major: 13 } dnn_version_info { major: 9 minor: 10 }
platform_name: "CUDA" device_description_str: "NVIDIA H100 80GB HBM3"
"""
# "%name = f32[2,3]{1,0} operation(": an instruction of HLO text. The shape may be a tuple.
INSTRUCTION = re.compile(r"^ +(?:ROOT )?%?[\w.-]+ = (?:\(.*?\)|\S+) ([a-z][a-z0-9-]*)\(", re.MULTILINE)
# An asynchronous all-reduce has two instructions, of which the first counts as one all-reduce.
ASYNCHRONOUS: Mapping[str, str] = {"all-reduce-start": "all-reduce"}
CUSTOM_CALL = re.compile(r'custom_call_target="([^"]+)"')
CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
NO_ESTIMATE = 2**63 - 1


class Target(NamedTuple):
    """A kind of accelerator, and the smallest machine of it that JAX describes."""

    platform: str
    topology: str
    options: Mapping[str, str] = {}


TARGETS: Mapping[str, Target] = {
    "v4": Target("tpu", "v4:2x2x1"),
    "v5e": Target("tpu", "v5e:2x2"),
    "v5p": Target("tpu", "v5p:2x2x1"),
    "v6e": Target("tpu", "v6e:2x2"),
    "tpu7x": Target("tpu", "tpu7x:2x2x1"),
    "h100": Target("cuda", "h100", {"target_config": H100, "topology": "1x1x1"}),
}


class Program(NamedTuple):
    """A compiled program."""

    compile_seconds: float
    flops: float | None
    """None where the compiler does not tell, as that for GPUs."""
    bytes_accessed: float | None
    temporary_bytes: int | None
    cycles: int | None
    """The sum of the compiler's estimates for all instructions, those of a loop counted once; None if it has none."""
    operations: Mapping[str, int]
    """How many instructions of the optimized program each operation has, those within fusions included."""
    custom_calls: Mapping[str, int]


def devices_of(name: str) -> Sequence[Device]:
    """The devices of the machine that TARGETS describes; they compile but do not run."""
    target = TARGETS[name]
    if target.platform == "tpu":
        for variable, value in TPU_ENVIRONMENT.items():
            os.environ.setdefault(variable, value)
    try:
        return topologies.get_topology_desc(target.topology, target.platform, **target.options).devices
    except (RuntimeError, jax.errors.JaxRuntimeError, ImportError) as error:
        raise ValueError(
            f"--targets: {name} cannot be compiled for: {str(error).splitlines()[0].rstrip('.')}; "
            "it needs the extra 'aot' and Python 3.12 or newer"
        ) from None


def compile_for(
    devices: Sequence[Device], function: Callable[..., Any], arguments: Sequence[Any], divided: Sequence[int] = ()
) -> Program:
    """Compiles a function for some devices.

    Args:
      devices: from `devices_of`, or JAX's own.
      function: of arrays.
      arguments: trees of arrays or `jax.ShapeDtypeStruct`s.
      divided: positions of the arguments that are divided among the devices along their first axes. Every device has
        the others whole.
    """
    mesh = Mesh(np.array(devices), ("devices",))

    def described(number: int, argument: Any) -> Any:
        spec = PartitionSpec("devices") if number in divided else PartitionSpec()
        sharding = NamedSharding(mesh, spec)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), argument)

    lowered = jax.jit(function).lower(*(described(number, argument) for number, argument in enumerate(arguments)))
    start = time.perf_counter()
    compiled = lowered.compile()
    seconds = time.perf_counter() - start
    costs: Mapping[str, float] = compiled.cost_analysis() or {}
    text = compiled.as_text() or ""
    memory = compiled.memory_analysis()
    return Program(
        compile_seconds=seconds,
        flops=costs.get("flops"),
        bytes_accessed=costs.get("bytes accessed"),
        temporary_bytes=memory.temp_size_in_bytes if memory else None,
        cycles=sum(cycles for cycles in map(int, CYCLES.findall(text)) if cycles < NO_ESTIMATE) or None,
        operations=count_operations(text),
        custom_calls=collections.Counter(CUSTOM_CALL.findall(text)),
    )


def count_operations(hlo: str) -> collections.Counter[str]:
    """How often each operation occurs in the text of an HLO module."""
    operations: list[str] = INSTRUCTION.findall(hlo)
    return collections.Counter(ASYNCHRONOUS.get(operation, operation) for operation in operations)
