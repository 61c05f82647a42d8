"""The stages of `experiments.device`. Each yields one JSON object for each thing that it has measured."""

import functools
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import cnn_jax

from . import benchmark_network, conv_methods, device_checks
from .accelerator_cases import over_images_and_features, plain_jax_match, plain_jax_zncc
from .baselines_training import torch as torch_calls
from .benchmark import Call, compiled_call
from .device_setting import Line, Setting, message_of, versions_of
from .throughput_matching import MatchingCase, build_baselines, noise
from .throughput_training import NetworkCase

DETERMINISTIC = ("--xla_gpu_deterministic_ops=true",)
MATCHING_CASES = (
    MatchingCase(65536, (28, 28), 16, (3, 3)),
    MatchingCase(4096, (64, 64), 16, (5, 5)),
    MatchingCase(256, (256, 256), 8, (9, 9)),
    MatchingCase(16, (512, 512), 8, (33, 33)),
    MatchingCase(1, (4096, 4096), 1, (64, 64)),
)
QUICK_MATCHING_CASES = (MatchingCase(8, (28, 28), 4, (3, 3)),)
NETWORKS = (
    NetworkCase(4096, 32, 3, (32, 64, 128)),
    NetworkCase(4096, 28, 1, (16, 32)),
    NetworkCase(4096, 16, 1, (8, 16)),
)
BATCHES = (NetworkCase(65536, 28, 1, (16, 32)), NetworkCase(65536, 16, 1, (8, 16)), *NETWORKS)
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
MIN_FOURIER_SIDE = 16


class Stage(NamedTuple):
    """A stage of the run."""

    measure: Callable[[Setting], Iterator[Line]]
    seconds: int
    """After which it is stopped."""
    xla_flags: tuple[str, ...] = ()


def correctness(setting: Setting) -> Iterator[Line]:
    """Functions beside NumPy in float64."""
    for check in device_checks.checks(64 if setting.is_quick else 256):
        line = {"name": check.name, "tolerance": check.tolerance}
        try:
            error = device_checks.error_of(check)
        except Exception as failure:
            yield {**line, "right": False, "failed": message_of(failure)}
            continue
        is_number = math.isfinite(error)
        yield {**line, "error": error if is_number else None, "right": is_number and error <= check.tolerance}


def determinism(setting: Setting) -> Iterator[Line]:
    """Whether two runs give the same bits, and which: two processes can be compared by their digests."""
    shape = (4 if setting.is_quick else 1024, 28, 28, 16)
    images = jax.random.randint(jax.random.key(0), shape, 0, 3).astype(jnp.float32)  # equal pixels in most windows
    for window, stride in ((2, 2), (3, 2), (3, 1)):
        pool = jax.vmap(functools.partial(cnn_jax.max_pool, window=window, stride=stride))
        ct = jax.random.normal(jax.random.key(1), jax.eval_shape(pool, images).shape)  # sums of it depend on the order
        gradient = jax.jit(lambda images, ct, pool=pool: jax.vjp(pool, images)[1](ct))
        yield {"name": f"max_pool's gradient {window}, {stride}", **_bits(gradient, images, ct)}
    case = (QUICK_NETWORKS if setting.is_quick else NETWORKS)[0]
    problem = benchmark_network.make_problem(*case)
    step = jax.jit(benchmark_network.sgd_step(jax.vmap(benchmark_network.network(case.features).apply, (None, 0))))
    state = benchmark_network.optimizer().init(problem.params)
    yield {
        "name": f"training step {case}",
        **_bits(step, problem.params, state, problem.images, problem.labels),
    }


def _bits(function: Callable[..., Any], *arguments: Any) -> Line:
    first, again = (jax.tree.leaves(jax.device_get(function(*arguments))) for _ in range(2))
    digests = [hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest() for arrays in (first, again)]
    return {"right": digests[0] == digests[1], "sha256": digests[0][:16]}


def matching(setting: Setting) -> Iterator[Line]:
    """match and zncc of every image with every feature: times, and rates beside that of the memory."""
    vector = jnp.ones(2**16 if setting.is_quick else 2**30)
    timed = setting.time({"ours": compiled_call(lambda a: a + 1, vector)})
    memory_rate = 2e-6 * vector.nbytes / timed["ms"]["ours"]
    yield {"name": "a + 1", **timed, "gbytes_per_s": memory_rate}
    yield {"name": "a call of almost nothing", **setting.time({"ours": compiled_call(lambda a: a + 1, vector[:1])})}
    del vector
    modules = setting.peers(("torch", "cupy"))
    yield versions_of(modules)
    if "torch" in modules:
        modules["torch"].backends.cudnn.allow_tf32 = False  # scores are computed in full float32
    for case in QUICK_MATCHING_CASES if setting.is_quick else MATCHING_CASES:
        images, features = noise(case)
        arguments = jax.device_put((images, features))
        compared = {name: module for name, module in modules.items() if name != "cupy" or is_for_fourier(case)}
        for task, plain_jax in (("match", plain_jax_match), ("zncc", plain_jax_zncc)):
            score = over_images_and_features(getattr(cnn_jax, task))
            cost = cnn_jax.cost(score, images, features)
            baselines, _ = build_baselines(task, compared, 1, images, features)
            calls = {
                "ours": compiled_call(score, *arguments),
                "jax": compiled_call(plain_jax, *arguments),
                **baselines,
            }
            timed = setting.time(calls, compared_images=4)
            line = {"name": f"{task} {case}", **timed}
            if "ours" in timed["ms"]:
                rate = 1e-6 * cost.bytes / timed["ms"]["ours"]  # images and maps once: the least that must move
                line |= {"least_gbytes_per_s": rate, "of_the_memory_rate": rate / memory_rate}
            yield line


def is_for_fourier(case: MatchingCase) -> bool:
    """Whether a library that only has Fourier transforms is a fair peer."""
    return min(case.window) >= MIN_FOURIER_SIDE


def search(setting: Setting) -> Iterator[Line]:
    """find over ranges of angles and scales, and over a list of angles."""
    side, row, column, size = (128, 30, 50, 40) if setting.is_quick else (2048, 700, 900, 100)
    image = jnp.asarray(_clouds(np.random.default_rng(0), side))
    template = image[row : row + size, column : column + size]
    whole_turn = (-math.pi, math.pi)
    searches = {
        "any angle": functools.partial(cnn_jax.find, angle_range=whole_turn),
        "any angle, scales 0.8 to 1.25": functools.partial(
            cnn_jax.find, angle_range=whole_turn, scale_range=(0.8, 1.25)
        ),
        "36 angles": functools.partial(cnn_jax.find, angles=tuple(np.arange(36) * math.pi / 18)),
    }
    for name, find in list(searches.items())[: 1 if setting.is_quick else None]:
        call = compiled_call(lambda image, template, find=find: find(image, template)[:2], image, template)
        timed = setting.time({"ours": call})
        line = {"name": f"find {side}x{side}, {size}x{size}, {name}", **timed}
        if timed["ms"]:
            y, x = call()
            line["right"] = max(abs(float(y[0]) - row), abs(float(x[0]) - column)) < 0.5
        yield line


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
    modules = setting.peers(("torch",))
    yield versions_of(modules)
    for dtype in (jnp.bfloat16, jnp.float32):
        for case in cases:
            problem = benchmark_network.make_problem(*case)
            calls = _jax_calls(problem, dtype, task)
            skipped = {}
            for name, is_compiled in {"torch": False, "torch.compile": True}.items() if modules else ():
                if is_compiled and (setting.is_quick or dtype == jnp.float32):
                    continue  # its compiler takes long
                try:
                    calls[name] = _torch_call(modules["torch"], problem, dtype, task, is_compiled)
                except Exception as error:
                    skipped[name] = message_of(error)
            timed = setting.time(calls)
            skipped |= timed["skipped"]
            yield {"name": f"{task} {case}, {np.dtype(dtype)}", **timed, "skipped": skipped}


def _jax_calls(problem: benchmark_network.Problem, dtype: Any, task: str) -> dict[str, Call]:
    applies = {
        "ours": jax.vmap(benchmark_network.network(problem.features).apply, (None, 0)),
        "jax": benchmark_network.plain_jax_network,
    }
    return {
        name: benchmark_network.jax_calls(
            benchmark_network.in_dtype(apply, dtype), problem.params, problem, lambda params: params["conv1"]["bias"]
        )[task]
        for name, apply in applies.items()
    }


def _torch_call(torch: Any, problem: benchmark_network.Problem, dtype: Any, task: str, is_compiled: bool) -> Call:
    """PyTorch's fastest ways: channels last, TF32, autocast to bfloat16."""
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.compiler.reset()  # otherwise the next network would be compiled for changing shapes
    is_16_bits = dtype == jnp.bfloat16
    return torch_calls(torch, problem, channels_last=True, compiled=is_compiled, bfloat16=is_16_bits)[task]


def methods(setting: Setting) -> Iterator[Line]:
    """Every method of convolution beside "auto", and its time as a fraction of what the cost model expects of a CPU."""
    for images, kernels in QUICK_CONVOLUTIONS if setting.is_quick else CONVOLUTIONS:
        generator = np.random.default_rng(0)
        arguments = jax.device_put([generator.standard_normal(shape).astype(np.float32) for shape in (images, kernels)])
        names = ["auto", "conv", "fft", *(["shift"] if math.prod(kernels[:3]) <= MAX_SHIFT_PRODUCTS else [])]
        calls = {
            name: compiled_call(
                jax.vmap(functools.partial(cnn_jax.conv, method=name, precision="highest"), (0, None)), *arguments
            )
            for name in names
        }
        timed = setting.time(calls)
        ms = timed["ms"]
        model = conv_methods.cpu_times_ns(images, kernels)
        yield {
            "name": ", ".join("x".join(map(str, shape)) for shape in (images, kernels)),
            **timed,
            "chosen": conv_methods.method_for(images, kernels, channels_first=False),
            "regret": ms["auto"] / min(ms.values()) if "auto" in ms else None,
            "factors": {name: 1e6 * ms[name] / model[name] for name in ("conv", "fft") if name in ms},
        }


def memory(setting: Setting) -> Iterator[Line]:
    """What scores take: arguments, results and temporaries; and the most so far, cases growing."""
    device = jax.devices()[0]
    for case in QUICK_MATCHING_CASES if setting.is_quick else reversed(MATCHING_CASES):
        arguments = jax.device_put(noise(case))
        line: dict[str, Any] = {"name": f"zncc {case}"}
        try:
            compiled = jax.jit(over_images_and_features(cnn_jax.zncc)).lower(*arguments).compile()
            result = jax.block_until_ready(compiled(*arguments))
        except Exception as error:
            yield {**line, "failed": message_of(error)}
            continue
        planned: Any = compiled.memory_analysis()
        line["argument_mb"] = sum(array.nbytes for array in arguments) / 1e6
        line["result_mb"] = result.nbytes / 1e6
        line["temporary_mb"] = planned and planned.temp_size_in_bytes / 1e6
        used = device.memory_stats()  # None on a CPU
        line["peak_mb_so_far"] = used and used["peak_bytes_in_use"] / 1e6
        del result
        yield line


# Together as long as the whole run.
STAGES: Mapping[str, Stage] = {
    "correctness": Stage(correctness, 80),
    "determinism": Stage(determinism, 25, DETERMINISTIC),
    "determinism-by-default": Stage(determinism, 25),
    "matching": Stage(matching, 90),
    "search": Stage(search, 60),
    "training": Stage(training, 90),
    "inference": Stage(inference, 60),
    "methods": Stage(methods, 30),
    "memory": Stage(memory, 20),
}
