"""The stages of `experiments.device`. Each yields one JSON object for each thing that it has measured."""

import functools
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import cnn_jax

from . import benchmark_network, conv_methods, device_checks
from .accelerator_cases import over_images_and_features, plain_jax_match, plain_jax_zncc
from .baselines_matching import import_libraries
from .baselines_training import torch as torch_calls
from .benchmark import Call, compiled_call, machine_peaks, median_ms
from .throughput_matching import MatchingCase, build_baselines, noise
from .throughput_training import NetworkCase

Line = Mapping[str, Any]

DETERMINISTIC = {"XLA_FLAGS": "--xla_gpu_deterministic_ops=true"}
MATCHING_CASES = (
    MatchingCase(65536, (28, 28), 16, (3, 3)),
    MatchingCase(4096, (64, 64), 16, (5, 5)),
    MatchingCase(256, (256, 256), 8, (9, 9)),
    MatchingCase(16, (512, 512), 8, (33, 33)),
    MatchingCase(1, (4096, 4096), 1, (64, 64)),
)
QUICK_MATCHING_CASES = (MatchingCase(8, (28, 28), 4, (3, 3)),)
NETWORKS = (
    NetworkCase(4096, 16, 1, (8, 16)),
    NetworkCase(4096, 28, 1, (16, 32)),
    NetworkCase(4096, 32, 3, (32, 64, 128)),
)
BATCHES = (*NETWORKS, NetworkCase(65536, 16, 1, (8, 16)), NetworkCase(65536, 28, 1, (16, 32)))
QUICK_NETWORKS = (NetworkCase(8, 8, 1, (4,)),)
# Images (N, H, W, C) and kernels (h, w, C, K) at which methods are compared.
CONVOLUTIONS = (
    ((4096, 28, 28, 1), (3, 3, 1, 16)),
    ((4096, 16, 16, 32), (3, 3, 32, 64)),
    ((256, 256, 256, 1), (9, 9, 1, 8)),
    ((16, 512, 512, 1), (33, 33, 1, 8)),
    ((1, 2048, 2048, 1), (64, 64, 1, 1)),
    ((1, 4096, 4096, 1), (256, 256, 1, 1)),
)
QUICK_CONVOLUTIONS = (((2, 20, 20, 1), (5, 5, 1, 4)),)
MAX_SHIFT_PRODUCTS = 100  # more take seconds to compile


class Setting(NamedTuple):
    """How long and how large."""

    is_quick: bool

    @property
    def min_seconds(self) -> float:
        return 0.001 if self.is_quick else 0.05

    def time(self, calls: Mapping[str, Call]) -> dict[str, float]:
        """Median milliseconds of every call, in interleaved rounds; the first calls compile, and do not count."""
        for call in calls.values():
            call()
        return median_ms(calls, min_seconds=self.min_seconds, rounds=1 if self.is_quick else 5)

    def peak_gbytes_per_s(self) -> float:
        """The memory's measured rate."""
        return machine_peaks(self.min_seconds, 64 if self.is_quick else 8192)["gbytes_per_s"]


class Stage(NamedTuple):
    """A stage of the run."""

    measure: Callable[[Setting], Iterator[Line]]
    seconds: int
    """After which it is stopped."""
    environment: Mapping[str, str] = {}


def correctness(setting: Setting) -> Iterator[Line]:
    """Functions beside NumPy in float64."""
    for check in device_checks.checks(64 if setting.is_quick else 256):
        error = device_checks.error_of(check)
        yield {"name": check.name, "error": error, "tolerance": check.tolerance, "right": error <= check.tolerance}


def determinism(setting: Setting) -> Iterator[Line]:
    """Whether two runs give the same bits."""
    images = jax.random.randint(jax.random.key(0), (4 if setting.is_quick else 1024, 28, 28, 16), 0, 3).astype(float)
    for window, stride in ((2, 2), (3, 2), (3, 1)):
        pool = functools.partial(cnn_jax.max_pool, window=window, stride=stride)
        gradient = jax.jit(jax.grad(lambda images, pool=pool: (jax.vmap(pool)(images) ** 2).sum()))
        yield {"name": f"max_pool's gradient {window}, {stride}", "right": _same_bits(gradient, images)}
    case = (QUICK_NETWORKS if setting.is_quick else NETWORKS)[-1]
    problem = benchmark_network.make_problem(*case)
    step = jax.jit(benchmark_network.sgd_step(jax.vmap(benchmark_network.network(case.features).apply, (None, 0))))
    state = benchmark_network.optimizer().init(problem.params)
    yield {
        "name": f"training step {case}",
        "right": _same_bits(step, problem.params, state, problem.images, problem.labels),
    }


def _same_bits(function: Callable[..., Any], *arguments: Any) -> bool:
    first, again = (jax.tree.leaves(jax.device_get(function(*arguments))) for _ in range(2))
    return all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


def matching(setting: Setting) -> Iterator[Line]:
    """match and zncc of every image with every feature: times, and rates beside the memory's."""
    peak = setting.peak_gbytes_per_s()
    yield {"name": "memory", "gbytes_per_s": peak}
    modules, _ = import_libraries(("torch", "cupy"), 1)
    for case in QUICK_MATCHING_CASES if setting.is_quick else MATCHING_CASES:
        images, features = noise(case)
        arguments = jax.device_put((images, features))
        for task, plain_jax in (("match", plain_jax_match), ("zncc", plain_jax_zncc)):
            score = over_images_and_features(getattr(cnn_jax, task))
            cost = cnn_jax.cost(score, images, features)
            baselines, skipped = build_baselines(task, modules, 1, images, features)
            calls = {
                "ours": compiled_call(score, *arguments),
                "jax": compiled_call(plain_jax, *arguments),
                **baselines,
            }
            ms = setting.time(calls)
            rate = 1e-6 * cost.bytes / ms["ours"]
            yield {
                "name": f"{task} {case}",
                "ms": ms,
                "images_per_s": 1e3 * case.images / ms["ours"],
                "gbytes_per_s": rate,
                "of_the_memory": rate / peak,
                "gflops": 2e-6 * cost.multiply_adds / ms["ours"],
                "skipped": skipped,
            }


def search(setting: Setting) -> Iterator[Line]:
    """find over ranges of angles and scales, and over a list of angles."""
    side = 128 if setting.is_quick else 2048
    generator = np.random.default_rng(0)
    image = jnp.asarray(_clouds(generator, side))
    template = image[30:70, 50:90] if setting.is_quick else image[700:800, 900:1000]
    whole_turn = (-math.pi, math.pi)
    searches = {
        "any angle": functools.partial(cnn_jax.find, angle_range=whole_turn),
        "any angle, scales 0.8 to 1.25": functools.partial(
            cnn_jax.find, angle_range=whole_turn, scale_range=(0.8, 1.25)
        ),
        "36 angles": functools.partial(cnn_jax.find, angles=tuple(np.arange(36) * math.pi / 18)),
    }
    for name, find in list(searches.items())[: 1 if setting.is_quick else None]:
        call = compiled_call(lambda image, template, find=find: find(image, template)[:3], image, template)
        sizes = ", ".join("x".join(map(str, array.shape)) for array in (image, template))
        yield {"name": f"find {sizes}, {name}", "ms": setting.time({"ours": call})}


def _clouds(generator: np.random.Generator, side: int) -> np.ndarray:
    """Noise of several sizes, in [-1, 1]."""
    total = np.zeros((side, side))
    for factor in (1, 4, 16, 64):
        coarse = generator.normal(size=(-(-side // factor),) * 2)
        total += np.kron(coarse, np.ones((factor, factor)))[:side, :side]
    return (total / np.abs(total).max()).astype(np.float32)


def training(setting: Setting) -> Iterator[Line]:
    """Training steps in bfloat16, and in float32."""
    yield from _networks(setting, QUICK_NETWORKS if setting.is_quick else NETWORKS, "train_step")


def inference(setting: Setting) -> Iterator[Line]:
    """Logits of whole batches in bfloat16, and in float32."""
    yield from _networks(setting, QUICK_NETWORKS if setting.is_quick else BATCHES, "inference")


def _networks(setting: Setting, cases: Sequence[NetworkCase], task: str) -> Iterator[Line]:
    modules, _ = import_libraries(("torch",), 1)
    for case in cases:
        problem = benchmark_network.make_problem(*case)
        for dtype in (jnp.bfloat16, jnp.float32):
            calls = _jax_calls(problem, dtype, task)
            if "torch" in modules:
                calls |= _torch_calls(modules["torch"], problem, dtype, task, setting)
            ms = setting.time(calls)
            name = f"{task} {case}, {np.dtype(dtype)}"
            yield {"name": name, "ms": ms, "images_per_s": 1e3 * case.images / ms["ours"]}


def _jax_calls(problem: benchmark_network.Problem, dtype: Any, task: str) -> dict[str, Call]:
    def in_dtype(apply: benchmark_network.Apply) -> benchmark_network.Apply:
        def run(params: Any, images: jax.Array) -> jax.Array:
            params, images = jax.tree.map(lambda leaf: leaf.astype(dtype), (params, images))
            return apply(params, images).astype(jnp.float32)

        return run

    applies = {
        "ours": jax.vmap(benchmark_network.network(problem.features).apply, (None, 0)),
        "jax": benchmark_network.plain_jax_network,
    }
    return {
        name: benchmark_network.jax_calls(in_dtype(apply), problem.params, problem, lambda p: p["conv1"]["bias"])[task]
        for name, apply in applies.items()
    }


def _torch_calls(
    torch: Any, problem: benchmark_network.Problem, dtype: Any, task: str, setting: Setting
) -> dict[str, Call]:
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    ways = {"torch": False} if setting.is_quick else {"torch": False, "torch.compile": True}
    calls = {}
    for name, is_compiled in ways.items():
        is_16_bits = dtype == jnp.bfloat16
        calls[name] = torch_calls(torch, problem, channels_last=True, compiled=is_compiled, bfloat16=is_16_bits)[task]
    return calls


def methods(setting: Setting) -> Iterator[Line]:
    """Every method of convolution, beside the one that is chosen; and constants of the cost model that would fit."""
    factors: dict[str, list[float]] = {"conv": [], "fft": []}
    for images, kernels in QUICK_CONVOLUTIONS if setting.is_quick else CONVOLUTIONS:
        generator = np.random.default_rng(0)
        arguments = jax.device_put([generator.standard_normal(shape).astype(np.float32) for shape in (images, kernels)])
        names = ["conv", "fft", *(["shift"] if math.prod(kernels[:3]) <= MAX_SHIFT_PRODUCTS else [])]
        calls = {
            name: compiled_call(
                jax.vmap(functools.partial(cnn_jax.conv, method=name, precision="highest"), (0, None)), *arguments
            )
            for name in names
        }
        ms = setting.time(calls)
        model = conv_methods.cpu_times_ns(images, kernels)
        for name, of_cases in factors.items():
            of_cases.append(1e6 * ms[name] / model[name])
        chosen = conv_methods.method_for(images, kernels, channels_first=False)
        name = ", ".join("x".join(map(str, shape)) for shape in (images, kernels))
        yield {
            "name": name,
            "ms": ms,
            "chosen": chosen,
            "regret": ms[chosen] / min(ms.values()) if chosen in ms else None,
        }
    yield {"name": "factors", **{f"{name}_factor": statistics.geometric_mean(of) for name, of in factors.items()}}


def memory(setting: Setting) -> Iterator[Line]:
    """The most memory that scores and searches take, arguments and results included."""
    device = jax.devices()[0]
    for case in QUICK_MATCHING_CASES if setting.is_quick else MATCHING_CASES:
        arguments = jax.device_put(noise(case))
        compiled = jax.jit(over_images_and_features(cnn_jax.zncc)).lower(*arguments).compile()
        result = jax.block_until_ready(compiled(*arguments))
        planned: Any = compiled.memory_analysis()
        used = device.memory_stats() or {}  # none on a CPU
        yield {
            "name": f"zncc {case}",
            "argument_mb": sum(array.nbytes for array in arguments) / 1e6,
            "result_mb": result.nbytes / 1e6,
            "temporary_mb": planned and planned.temp_size_in_bytes / 1e6,
            "peak_mb_so_far": used and used["peak_bytes_in_use"] / 1e6,
        }


STAGES: Mapping[str, Stage] = {
    "correctness": Stage(correctness, 90),
    "determinism": Stage(determinism, 40, DETERMINISTIC),
    "matching": Stage(matching, 80),
    "search": Stage(search, 60),
    "training": Stage(training, 90),
    "inference": Stage(inference, 60),
    "methods": Stage(methods, 50),
    "memory": Stage(memory, 20),
}
