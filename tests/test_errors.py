"""Errors of other libraries, in one line."""

from cnn_jax._errors import one_line


def test_an_error_becomes_one_short_line():
    assert one_line(ValueError("first\n   second\tthird")) == "first second third"
    assert one_line(ValueError("x" * 1000)) == "x" * 200
    assert one_line(ValueError()) == ""
