"""experiments._lib.conv_methods: what benchmarks know of cnn_jax's convolution."""

from experiments._lib import conv_methods


def test_the_chosen_method_is_one_of_the_methods():
    for window in ((3, 3), (33, 33)):
        chosen = conv_methods.chosen_method((4, 512, 512), window, 8)
        assert chosen in conv_methods.METHODS
        assert chosen != "auto"


def test_limits_are_numbers_above_0():
    assert conv_methods.MAX_SHIFT_PRODUCTS > 0
    assert conv_methods.MAX_IM2COL_NUMBERS > 0
