"""Cost model of grouped correlation on the CPU: groups side by side, or one after another."""

import dataclasses
import math
from typing import Unpack

from ._cost_model import CPU_COSTS, CpuCosts, cpu_times_ns
from ._geometry import Spacing, correlation_extents
from ._typing import Shape


@dataclasses.dataclass(frozen=True)
class GroupCosts:
    """What groups cost on the CPU. The comments name rows of `python -m experiments.throughput`, as in `CpuCosts`."""

    # A multiply-add of sums over whole images, all lanes filled. depthwise conv's gradients: 32x32x32x32, 32.
    sum_mac_ns: float = 0.25
    # Most columns of results of those sums. A loop writes out the products of each; more take seconds to compile.
    sum_max_products: int = 64
    # Images whose products one fused loop of those sums adds.
    sum_fused_products: int = 8
    # An element of one group's images or results that is moved out of or into those of all groups.
    # conv of 8 networks: 32x32x32x32, 32.
    map_move_ns: float = 0.7
    # One step of the loop over groups.
    map_step_ns: float = 5000.0


GROUP_COSTS = GroupCosts()


def best_group_method(
    image: Shape,
    kernel: Shape,
    *,
    cpu_costs: CpuCosts = CPU_COSTS,
    group_costs: GroupCosts = GROUP_COSTS,
    **spacing: Unpack[Spacing],
) -> str:
    """The fastest on the CPU of "shift", "sum" and "map", for images (N, H, W, G, C) and kernels (h, w, G, C, K)."""
    n, *_, groups, channels = image
    *kernel_size, _, _, kernels = kernel
    padded_size, _, output_size = correlation_extents(image[1:3], kernel_size, **spacing)
    positions = math.prod(output_size)
    taps = math.prod(kernel_size)
    lanes = groups * kernels
    if lanes < cpu_costs.register_lanes:
        return "map"
    macs = n * positions * taps * channels * lanes * (1 + 2 * (lanes % cpu_costs.register_lanes) / lanes)

    one_image = *image[:3], channels
    one_kernel = *kernel_size, channels, kernels
    one_group = cpu_times_ns(one_image, one_kernel, channels_first=False, cpu_costs=cpu_costs, **spacing)
    moved = math.prod(one_image) + math.prod(one_kernel) + n * positions * kernels
    times = {"map": groups * (min(one_group.values()) + group_costs.map_move_ns * moved + group_costs.map_step_ns)}
    if taps * channels <= cpu_costs.shift_max_products:
        repeated = n * math.prod(padded_size) * channels * lanes
        times["shift"] = cpu_costs.shift_mac_ns * macs + cpu_costs.shift_split_channel_ns * repeated
    if output_size[1] <= group_costs.sum_max_products:
        times["sum"] = group_costs.sum_mac_ns * macs
    return min(times, key=times.__getitem__)
