"""Cases of `experiments.throughput` for networks: training steps, inference, and the layers within a step."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import cnn_jax

from . import benchmark_network, cli
from .baselines_layers import GROUPED_BENCHMARKS, LAYER_BENCHMARKS
from .baselines_training import BASELINES
from .benchmark import BenchmarkCase, Call, compiled_call

OURS_SCAN_STEPS = 50
PLAIN_JAX_SCAN_STEPS = 2  # within a scan its steps take seconds
MAX_REASON_CHARACTERS = 200


class NetworkCase(NamedTuple):
    """The number and size of images, their channels, and the features of a network's stages."""

    images: int
    size: int
    channels: int
    features: tuple[int, ...]

    def __str__(self) -> str:
        shape = (self.images, self.size, self.size, self.channels)
        return f"{'x'.join(map(str, shape))}, {'-'.join(map(str, self.features))}"


NETWORKS = (
    NetworkCase(256, 16, 1, (8, 16)),
    NetworkCase(256, 28, 1, (16, 32)),
    NetworkCase(256, 32, 3, (32, 64, 128)),
)
BATCHES = tuple(NetworkCase(images, 16, 1, (8, 16)) for images in (1, 64, 4096, 65536))
STAGES = (
    NetworkCase(256, 28, 1, (16,)),
    NetworkCase(256, 16, 32, (64,)),
    NetworkCase(256, 8, 64, (128,)),
)
GROUPED_STAGES = (NetworkCase(32, 32, 32, (32,)),)
QUICK_CASES = (NetworkCase(16, 8, 1, (4,)),)


def network_benchmark(task: str, case: NetworkCase, modules: Mapping[str, Any], threads: int) -> BenchmarkCase:
    """A training step ("train_step") or the logits alone ("inference") of a whole batch."""
    problem = benchmark_network.make_problem(*case)
    library_calls, skipped = build_baselines(task, modules, problem)
    in_16_bits = {name: call for name, call in library_calls.items() if BASELINES[name].bits == 16}
    in_32_bits = {name: call for name, call in library_calls.items() if name not in in_16_bits}
    baselines = {"jax": benchmark_network.plain_jax(problem)[task], **in_32_bits}
    methods = {}
    repeats = {}
    if task == "train_step":
        methods["scan"] = benchmark_network.ours_scanned(problem, OURS_SCAN_STEPS)
        baselines["jax scan"] = benchmark_network.plain_jax_scanned(problem, PLAIN_JAX_SCAN_STEPS)
        repeats = {"scan": OURS_SCAN_STEPS, "jax scan": PLAIN_JAX_SCAN_STEPS}
    arguments = jax.tree.map(jnp.asarray, (problem.params, problem.images))
    return BenchmarkCase(
        ours=benchmark_network.ours(problem)[task],
        baselines=baselines,
        in_16_bits=in_16_bits,
        cost=cnn_jax.cost(task_function(task, case), *arguments),
        images=case.images,
        methods=methods,
        skipped=skipped,
        repeats=repeats,
    )


def task_function(task: str, case: NetworkCase) -> Callable[..., Any]:
    """The function (params, images) whose multiply-adds a task does."""
    apply = jax.vmap(benchmark_network.network(case.features).apply, (None, 0))
    if task == "inference":
        return apply
    return jax.grad(lambda params, images: apply(params, images).sum())


def build_baselines(
    task: str, modules: Mapping[str, Any], problem: benchmark_network.Problem
) -> tuple[dict[str, Call], dict[str, str]]:
    """The installed libraries' calls, and why others are left out: torch.compile needs a C++ compiler."""
    calls = {}
    skipped = {}
    for name, baseline in BASELINES.items():
        if baseline.library not in modules:
            continue
        library_calls = baseline.build(modules[baseline.library], problem)
        try:
            library_calls["inference"]()
            calls[name] = library_calls[task]
        except Exception as error:
            if name != "torch.compile":
                raise
            skipped[name] = f"left out: {cli.one_line_error(error)[:MAX_REASON_CHARACTERS]}"
    return calls, skipped


def layer_benchmark(task: str, case: NetworkCase, modules: Mapping[str, Any], threads: int) -> BenchmarkCase:
    """A part of a training step, of one stage of a network, in cnn_jax and in plain JAX."""
    layer = {**LAYER_BENCHMARKS, **GROUPED_BENCHMARKS}[task]
    generator = np.random.default_rng(0)
    arguments = [
        jax.device_put(generator.standard_normal(shape).astype(np.float32))
        for shape in layer.shapes(case.images, case.size, case.channels, *case.features)
    ]
    return BenchmarkCase(
        ours=compiled_call(layer.ours, *arguments),
        baselines={"jax": compiled_call(layer.plain_jax, *arguments)},
        cost=cnn_jax.cost(layer.ours, *arguments),
        images=case.images,
    )
