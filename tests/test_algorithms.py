import pytest

from cnn_jax._algorithms import ALGORITHMS, METHODS, check_method, transpose_method


def test_methods_are_checked_by_name():
    assert [check_method(method) for method in METHODS] == ["auto", *ALGORITHMS]
    with pytest.raises(ValueError, match=r"method: expected one of \('auto', .*\), got 'magic'"):
        check_method("magic")


def test_derivatives_keep_every_method_but_shift():
    assert [transpose_method(method) for method in METHODS] == [m if m != "shift" else "auto" for m in METHODS]
