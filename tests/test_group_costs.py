"""The choice of the algorithm of groups on the CPU, also under other constants."""

import dataclasses
from typing import Any

import pytest

from cnn_jax._cost_model import CPU_COSTS
from cnn_jax._group_costs import GROUP_COSTS, GroupCosts, best_group_method

SAME_3X3: dict[str, Any] = {
    "stride": (1, 1),
    "padding": ((1, 1), (1, 1)),
    "dilation": (1, 1),
    "lhs_dilation": (1, 1),
}
DEPTHWISE = (32, 32, 32, 32, 1), (3, 3, 32, 1, 1)
DEPTHWISE_KERNEL_GRADIENT = (1, 32, 32, 32, 32), (32, 32, 32, 32, 1)
NETWORKS = (32, 14, 14, 8, 16), (3, 3, 8, 16, 32)
FEW_LANES = (32, 32, 32, 2, 1), (3, 3, 2, 1, 1)


@pytest.mark.parametrize(
    ("shapes", "chosen"),
    [(DEPTHWISE, "shift"), (DEPTHWISE_KERNEL_GRADIENT, "sum"), (NETWORKS, "map"), (FEW_LANES, "map")],
)
def test_the_algorithm_fits_the_work(shapes, chosen):
    assert best_group_method(*shapes, **SAME_3X3) == chosen


def test_choices_follow_the_costs():
    image, kernel = (32, 16, 16, 16, 4), (3, 3, 16, 4, 4)
    slow_shift = dataclasses.replace(CPU_COSTS, shift_mac_ns=9.0)
    slow_map = GroupCosts(map_step_ns=1e9)
    assert best_group_method(image, kernel, group_costs=slow_map, **SAME_3X3) == "shift"
    assert best_group_method(image, kernel, cpu_costs=slow_shift, **SAME_3X3) == "map"
    assert best_group_method(image, kernel, cpu_costs=slow_shift, group_costs=slow_map, **SAME_3X3) == "sum"


def test_products_that_compile_slowly_are_not_written_out():
    free_shift = dataclasses.replace(CPU_COSTS, shift_mac_ns=0.0, shift_split_channel_ns=0.0)
    assert best_group_method(*DEPTHWISE_KERNEL_GRADIENT, cpu_costs=free_shift, **SAME_3X3) == "sum"
    few_products = dataclasses.replace(GROUP_COSTS, sum_max_products=1)
    assert best_group_method(*DEPTHWISE_KERNEL_GRADIENT, group_costs=few_products, **SAME_3X3) == "map"


def test_no_groups_are_mapped():
    assert best_group_method((1, 8, 8, 0, 1), (3, 3, 0, 1, 1), **SAME_3X3) == "map"
