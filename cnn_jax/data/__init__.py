"""Images to train on and to read.

| module | contents |
|---|---|
| `xo` | X's and O's drawn in JAX, with random distortions |
| `mnist`, `cifar`, `omniglot` | published data sets, downloaded and verified |
| `image_folder` | labeled images in one folder per class |
| `stream` | labeled images that do not fit in memory |
| `sources` | labeled images read one by one: folders of image files, and ArrayRecord files |
| `npz` | labeled images in one .npz file |
| `dataset` | labeled images in memory, and their split into training and validation sets |
| `image_io` | image files as arrays |
| `pixels` | bytes to pixels in [-1, 1] and back |
| `letters` | segmentation of a letter in an image |

Modules are imported by their names, such as `from cnn_jax.data import mnist`. `xo`, `npz`, `dataset` and `pixels` need
no extra; `stream` and the ArrayRecord files of `sources` need `pip install 'cnn_jax[stream]'`, the others
`pip install 'cnn_jax[data]'`.
"""
