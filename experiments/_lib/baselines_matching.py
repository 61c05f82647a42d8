"""Baselines of template matching: other libraries on the same float32 arrays, as their users would call them.

A function for each library and task takes the library's module, the number of threads, images (N, H, W) and features
(K, h, w). It returns a call without arguments that has computed the score maps (N, K, H', W') when it returns. It
raises MemoryError if the library would need too much memory.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from .benchmark import Call

MAX_UNFOLDED_BYTES = 4e9


class Library(NamedTuple):
    """A library to compare with."""

    modules: tuple[str, ...]
    """Modules to import; the first one has `__version__`."""
    install: str
    """How to install it."""


LIBRARIES = {
    "opencv": Library(("cv2",), "pip install 'cnn_jax[bench]'"),
    "skimage": Library(("skimage", "skimage.feature"), "pip install 'cnn_jax[bench]'"),
    "torch": Library(("torch",), "pip install torch"),
    "flax": Library(("flax", "flax.nnx"), "pip install 'cnn_jax[bench]'"),
    "equinox": Library(("equinox",), "pip install 'cnn_jax[bench]'"),
    "cupy": Library(("cupy", "cupyx.scipy.signal"), "pip install cupy-cuda13x (or cupy-cuda12x)"),
}


def import_libraries(names: Sequence[str], threads: int) -> tuple[dict[str, Any], list[str]]:
    """Imports the installed ones of these libraries and sets their number of threads.

    Returns:
      The modules by name, and a line for each library that is left out.
    """
    modules = {}
    missing = []
    for name in names:
        library = LIBRARIES[name]
        try:
            imported = [importlib.import_module(module) for module in library.modules]
            modules[name] = imported[0]
        except ImportError:
            missing.append(f"{name}: not installed, so not compared; {library.install}")
    if "opencv" in modules:
        modules["opencv"].setNumThreads(threads)
    if "torch" in modules:
        modules["torch"].set_num_threads(threads)
        if jax.default_backend() == "gpu" and not modules["torch"].cuda.is_available():
            version = modules.pop("torch").__version__
            missing.append(f"torch {version}: finds no GPU, so not compared; install its CUDA build")
    return modules, missing


def opencv_match(cv2: Any, threads: int, images: np.ndarray, features: np.ndarray) -> Call:
    """TM_CCORR with features divided by n; OpenCV chooses direct sums or Fourier transforms."""
    return lambda: _opencv_maps(cv2, cv2.TM_CCORR, images, features / features[0].size)


def opencv_zncc(cv2: Any, threads: int, images: np.ndarray, features: np.ndarray) -> Call:
    """TM_CCOEFF_NORMED."""
    return lambda: _opencv_maps(cv2, cv2.TM_CCOEFF_NORMED, images, features)


def _opencv_maps(cv2: Any, score: int, images: np.ndarray, features: np.ndarray) -> np.ndarray:
    maps = np.empty(maps_shape(images.shape, features.shape), np.float32)
    for image, maps_of_image in zip(images, maps, strict=True):
        for feature, score_map in zip(features, maps_of_image, strict=True):
            cv2.matchTemplate(image, feature, score, score_map)
    return maps


def skimage_zncc(skimage: Any, threads: int, images: np.ndarray, features: np.ndarray) -> Call:
    """match_template, which uses SciPy's Fourier transforms."""
    from scipy import fft

    def call() -> np.ndarray:
        match_template = skimage.feature.match_template
        with fft.set_workers(threads):
            return np.stack([[match_template(image, feature) for feature in features] for image in images])

    return call


def torch_match(torch: Any, threads: int, images: np.ndarray, features: np.ndarray) -> Call:
    """conv2d of all images and features at once."""

    def maps(images: Any, features: Any) -> Any:
        return torch.nn.functional.conv2d(images, features) / features[0].numel()

    return _torch_call(torch, maps, images, features)


def torch_zncc(torch: Any, threads: int, images: np.ndarray, features: np.ndarray) -> Call:
    """The definition: unfolded patches, centered and normalized, times the features."""
    window = features.shape[1:]
    unfolded_bytes = float(np.prod((*maps_shape(images.shape, (1, *window)), *window)) * images.itemsize)
    if unfolded_bytes > MAX_UNFOLDED_BYTES:
        gigabytes = f"{unfolded_bytes / 1e9:.3g} GB"
        raise MemoryError(
            f"left out: the unfolded images would take {gigabytes}, more than {MAX_UNFOLDED_BYTES / 1e9:.0f}"
        )

    def centered_and_normalized(columns: Any, dim: int) -> Any:
        return torch.nn.functional.normalize(columns.sub_(columns.mean(dim, keepdim=True)), dim=dim)

    def maps(images: Any, features: Any) -> Any:
        patches = centered_and_normalized(torch.nn.functional.unfold(images, window), 1)
        scores = centered_and_normalized(features.flatten(1).clone(), 1) @ patches
        return scores.reshape(maps_shape(images[:, 0].shape, features[:, 0].shape))

    return _torch_call(torch, maps, images, features)


def torch_zncc_by_sums(torch: Any, threads: int, images: np.ndarray, features: np.ndarray) -> Call:
    """conv2d with centered features, over the root of energies from sums of pixels and of their squares by avg_pool2d.

    It takes no memory for patches. Next to strong edges its rounding is larger.
    """
    window = features.shape[1:]
    pixels = float(np.prod(window))

    def maps(images: Any, features: Any) -> Any:
        functional = torch.nn.functional
        centered = features - features.mean((2, 3), keepdim=True)
        means = functional.avg_pool2d(images, window, 1)
        variances = functional.avg_pool2d(images**2, window, 1) - means**2
        energies = variances * pixels * (centered**2).sum((1, 2, 3)).reshape(1, -1, 1, 1)
        return functional.conv2d(images, centered) / energies.clamp(min=1e-12).sqrt()

    return _torch_call(torch, maps, images, features)


def _torch_call(torch: Any, function: Callable[[Any, Any], Any], *arrays: np.ndarray) -> Call:
    gpu = torch.cuda.is_available() and jax.default_backend() == "gpu"
    tensors = [torch.tensor(array[:, None], device="cuda" if gpu else "cpu") for array in arrays]

    def call() -> Any:
        with torch.inference_mode():
            result = function(*tensors)
        if gpu:
            torch.cuda.synchronize()
        return result

    return call


def cupy_match(cupy: Any, threads: int, images: np.ndarray, features: np.ndarray) -> Call:
    """fftconvolve of all images and features at once."""
    signal = importlib.import_module("cupyx.scipy.signal")
    batched_images = cupy.asarray(images)[:, None]
    batched_features = cupy.asarray(features)[None]

    def call() -> Any:
        kernels = batched_features[:, :, ::-1, ::-1] / features[0].size
        maps = signal.fftconvolve(batched_images, kernels, mode="valid", axes=(2, 3))
        cupy.cuda.Device().synchronize()
        return maps

    return call


def maps_shape(images: tuple[int, ...], features: tuple[int, ...]) -> tuple[int, int, int, int]:
    """The shape of the maps of images (N, H, W) and features (K, h, w): (N, K, H - h + 1, W - w + 1)."""
    n, height, width = images
    k, h, w = features
    return n, k, height - h + 1, width - w + 1


CPU_BASELINES: Mapping[str, Mapping[str, Callable[..., Call]]] = {
    "match": {"opencv": opencv_match, "torch": torch_match},
    "zncc": {"opencv": opencv_zncc, "skimage": skimage_zncc, "torch": torch_zncc},
}
GPU_BASELINES: Mapping[str, Mapping[str, Callable[..., Call]]] = {
    "match": {"torch": torch_match, "cupy": cupy_match},
    "zncc": {"torch": torch_zncc_by_sums},
}


def baselines() -> Mapping[str, Mapping[str, Callable[..., Call]]]:
    """The baselines of every task on the device that JAX computes on."""
    return GPU_BASELINES if jax.default_backend() == "gpu" else CPU_BASELINES
