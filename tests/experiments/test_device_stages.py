"""experiments._lib.device_stages on the CPU; `test_device` rehearses all stages."""

from experiments._lib.device_setting import Setting
from experiments._lib.device_stages import STAGES
from experiments.device import MINUTES

QUICK = Setting(is_quick=True)


def lines_of(stage):
    return list(STAGES[stage].measure(QUICK))


def test_determinism_compares_bits():
    lines = lines_of("determinism")
    assert [line["right"] for line in lines] == [True] * 4
    assert len({line["sha256"] for line in lines}) == 4


def test_methods_are_compared_and_fitted():
    (line,) = lines_of("methods")
    assert line["ms"].keys() == {"auto", "conv", "fft", "shift"}
    assert line["regret"] >= 1
    assert line["factors"].keys() == {"conv", "fft"}


def test_the_stages_take_as_long_as_the_run():
    assert sum(stage.seconds for stage in STAGES.values()) == 60 * MINUTES
