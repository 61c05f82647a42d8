import jax.numpy as jnp
import pytest

from cnn_jax._dtypes import accumulation_dtype


@pytest.mark.parametrize(
    ("dtype", "of_sums"),
    [("bfloat16", "float32"), ("float16", "float32"), ("float32", "float32"), ("float64", "float64")],
)
def test_sums_of_16_bits_have_32(dtype, of_sums):
    assert accumulation_dtype(jnp.dtype(dtype)) == jnp.dtype(of_sums)
