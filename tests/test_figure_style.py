"""The style that all figures share."""

from cnn_jax import _figure_style as style


def test_seven_lines_differ_in_color_and_marker_and_the_eighth_repeats():
    assert len({style.color(index) for index in range(7)}) == 7
    assert len({style.marker(index) for index in range(7)}) == 7
    assert (style.color(7), style.marker(7)) == (style.color(0), style.marker(0))


def test_colors_for_and_against_differ_from_each_other_and_from_the_ground():
    assert len({style.POSITIVE_COLOR, style.NEGATIVE_COLOR, style.NEUTRAL_COLOR}) == 3
