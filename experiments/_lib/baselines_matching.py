"""Other libraries that do what cnn_jax does, each on the same float32 arrays and as its users would write it.

A function for each peer and task takes the peer's module, the threads it may use, images (N, H, W) and features
(K, h, w), and returns a call without arguments that has the maps (N, K, H', W') ready when it returns. It raises a
MemoryError instead where the peer would need too much.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

Call = Callable[[], Any]
# Each peer's modules to import, the first with its version, and how to install it.
LIBRARIES = {
    "opencv": (("cv2",), "pip install 'cnn_jax[bench]'"),
    "skimage": (("skimage", "skimage.feature"), "pip install 'cnn_jax[bench]'"),
    "torch": (("torch",), "pip install torch"),
    "flax": (("flax", "flax.nnx"), "pip install 'cnn_jax[bench]'"),
    "equinox": (("equinox",), "pip install 'cnn_jax[bench]'"),
    "cupy": (("cupy", "cupyx.scipy.signal"), "pip install cupy-cuda13x (or cupy-cuda12x)"),
}
UNFOLDED_BYTES = 4e9  # the most that unfolded images may take


def load(names: list[str], threads: int) -> tuple[dict[str, Any], list[str]]:
    """The modules of the named peers that are installed, told how many threads to use, and a line for each other."""
    modules, missing = {}, []
    for name in names:
        imported, install = LIBRARIES[name]
        try:
            found = [importlib.import_module(each) for each in imported]
            modules[name] = found[0]
        except ImportError:
            missing.append(f"{name}: not installed, so not compared; {install}")
    if "opencv" in modules:
        modules["opencv"].setNumThreads(threads)
    if "torch" in modules:
        modules["torch"].set_num_threads(threads)
        if jax.default_backend() == "gpu" and not modules["torch"].cuda.is_available():
            missing.append(
                f"torch {modules.pop('torch').__version__}: sees no GPU, so not compared; install its CUDA build"
            )
    return modules, missing


def to_numpy(result: Any) -> np.ndarray:
    """A peer's result as a NumPy array."""
    for move in ("cpu", "get"):  # of PyTorch's tensors and CuPy's arrays
        if hasattr(result, move):
            result = getattr(result, move)()
    return np.asarray(result)


def opencv_match(cv2: Any, threads: int, images: np.ndarray, features: np.ndarray) -> Call:
    """TM_CCORR, by direct sums or Fourier transforms as OpenCV chooses; the features are divided by n before."""
    return lambda: _each(cv2, cv2.TM_CCORR, images, features / features[0].size)


def opencv_zncc(cv2: Any, threads: int, images: np.ndarray, features: np.ndarray) -> Call:
    """TM_CCOEFF_NORMED."""
    return lambda: _each(cv2, cv2.TM_CCOEFF_NORMED, images, features)


def _each(cv2: Any, score: int, images: np.ndarray, features: np.ndarray) -> np.ndarray:
    out = np.empty(maps_shape(images.shape, features.shape), np.float32)
    for image, maps in zip(images, out, strict=True):
        for feature, result in zip(features, maps, strict=True):
            cv2.matchTemplate(image, feature, score, result)
    return out


def skimage_zncc(skimage: Any, threads: int, images: np.ndarray, features: np.ndarray) -> Call:
    """match_template, whose Fourier transforms are SciPy's."""
    from scipy import fft

    def call() -> np.ndarray:
        match_template = skimage.feature.match_template
        with fft.set_workers(threads):
            return np.stack([[match_template(image, feature) for feature in features] for image in images])

    return call


def torch_match(torch: Any, threads: int, images: np.ndarray, features: np.ndarray) -> Call:
    """conv2d of all images and features at once."""

    def call(images: Any, features: Any) -> Any:
        return torch.nn.functional.conv2d(images, features) / features[0].numel()

    return _torch_call(torch, call, images, features)


def torch_zncc(torch: Any, threads: int, images: np.ndarray, features: np.ndarray) -> Call:
    """Every patch in a column of its own, centred and normalised, times the features: the definition."""
    window = features.shape[1:]
    size = float(np.prod((*maps_shape(images.shape, (1, *window)), *window)) * images.itemsize)
    if size > UNFOLDED_BYTES:
        raise MemoryError(
            f"left out: the unfolded images would take {size / 1e9:.3g} GB, more than {UNFOLDED_BYTES / 1e9:.0f}"
        )

    def unit(columns: Any, dim: int) -> Any:
        return torch.nn.functional.normalize(columns.sub_(columns.mean(dim, keepdim=True)), dim=dim)

    def call(images: Any, features: Any) -> Any:
        columns = unit(torch.nn.functional.unfold(images, window), 1)
        maps = unit(features.flatten(1).clone(), 1) @ columns
        return maps.reshape(maps_shape(images[:, 0].shape, features[:, 0].shape))

    return _torch_call(torch, call, images, features)


def _torch_call(torch: Any, function: Callable[[Any, Any], Any], *arrays: np.ndarray) -> Call:
    gpu = torch.cuda.is_available() and jax.default_backend() == "gpu"
    tensors = [torch.tensor(array[:, None], device="cuda" if gpu else "cpu") for array in arrays]

    def call() -> Any:
        with torch.inference_mode():
            out = function(*tensors)
        if gpu:
            torch.cuda.synchronize()
        return out

    return call


def cupy_match(cupy: Any, threads: int, images: np.ndarray, features: np.ndarray) -> Call:
    """fftconvolve of all images and features at once."""
    signal = importlib.import_module("cupyx.scipy.signal")
    image, feature = cupy.asarray(images)[:, None], cupy.asarray(features)[None]

    def call() -> Any:
        kernel = feature[:, :, ::-1, ::-1] / features[0].size
        out = signal.fftconvolve(image, kernel, mode="valid", axes=(2, 3))
        cupy.cuda.Device().synchronize()
        return out

    return call


def maps_shape(images: tuple[int, ...], features: tuple[int, ...]) -> tuple[int, int, int, int]:
    """The shape of the maps of images (N, H, W) and features (K, h, w): (N, K, H - h + 1, W - w + 1)."""
    (n, height, width), (k, h, w) = images, features
    return n, k, height - h + 1, width - w + 1


CPU: Mapping[str, Mapping[str, Callable[..., Call]]] = {
    "match": {"opencv": opencv_match, "torch": torch_match},
    "zncc": {"opencv": opencv_zncc, "skimage": skimage_zncc, "torch": torch_zncc},
}
GPU: Mapping[str, Mapping[str, Callable[..., Call]]] = {
    "match": {"torch": torch_match, "cupy": cupy_match},
    "zncc": {"torch": torch_zncc},
}
