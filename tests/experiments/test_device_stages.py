"""experiments._lib.device_stages on the CPU; `test_device` rehearses all stages."""

from experiments._lib.device_stages import STAGES, Setting

QUICK = Setting(is_quick=True)


def lines_of(stage):
    return list(STAGES[stage].measure(QUICK))


def test_determinism_compares_bits():
    lines = lines_of("determinism")
    assert [line["right"] for line in lines] == [True] * 4
    assert STAGES["determinism"].environment == {"XLA_FLAGS": "--xla_gpu_deterministic_ops=true"}


def test_methods_are_compared_and_fitted():
    *lines, factors = lines_of("methods")
    assert lines[0]["ms"].keys() == {"conv", "fft", "shift"}
    assert factors["conv_factor"] > 0
    assert factors["fft_factor"] > 0


def test_the_limits_fit_into_eight_minutes_and_a_little():
    assert sum(stage.seconds for stage in STAGES.values()) <= 500
