"""Tests of `cnn_jax.data`."""
