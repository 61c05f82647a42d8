"""Short texts of arrays and trees, and the values that print them."""

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax._reprs import array_text, tree_text
from cnn_jax.data.dataset import LabeledImages
from cnn_jax.serialization import SavedModel

PARAMS = {"conv1": {"kernel": jnp.zeros((5, 5, 1, 400)), "bias": np.zeros(400)}, "scale": 1.0}


def test_arrays_print_their_dtype_and_shape():
    assert array_text(np.zeros((2, 3), np.uint8)) == "uint8 (2, 3)"
    assert array_text(jnp.zeros((), jnp.bfloat16)) == "bfloat16 ()"
    assert array_text(None) == "None"


def test_trees_print_how_much_they_hold():
    assert tree_text(PARAMS) == "3 arrays of 10,401 numbers"
    assert tree_text({}) == "0 arrays of 0 numbers"


def test_a_saved_model_prints_its_network_and_no_arrays():
    model = SavedModel(PARAMS, "lenet5", {"classes": 10})
    assert repr(model) == "SavedModel(params=<3 arrays of 10,401 numbers>, net='lenet5', options={'classes': 10})"


def test_labeled_images_print_shapes_and_the_first_classes():
    images = np.zeros((3, 28, 28), np.uint8)
    labels = np.zeros(3, np.int32)
    data = LabeledImages(images, labels, ("X", "O"))
    assert repr(data) == "LabeledImages(images=<uint8 (3, 28, 28)>, labels=<int32 (3,)>, classes=('X', 'O'))"
    many = LabeledImages(images, labels, tuple(map(str, range(1000))))
    assert repr(many).endswith("classes=('0', '1', '2', '3', '4', '5', ...))")


def test_traced_images_print_too():
    texts = []

    def trace(images):
        texts.append(repr(LabeledImages(images, images, ())))
        return images

    jax.eval_shape(trace, jax.ShapeDtypeStruct((2,), "int8"))
    assert texts == ["LabeledImages(images=<int8 (2,)>, labels=<int8 (2,)>, classes=())"]
