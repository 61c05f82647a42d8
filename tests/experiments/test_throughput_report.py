"""experiments._lib.throughput_report: rows as tables, ratios and warnings."""

import pytest

from experiments._lib import throughput_report

PEAKS = {"gflops": 100.0, "gbytes_per_s": 10.0}
ROW = {
    "task": "match",
    "case": "1x8x8, 1x3x3",
    "ours_ms": 2.0,
    "spread": 0.123,
    "images_per_s": 2000.0,
    "first_call_s": 1.5,
    "peers": {"a": 9.0, "torch": 6.0},
    "peers_first_call_s": {"a": 0.5, "torch": 0.1},
    "peers_in_16_bits": {"torch bfloat16": 2.5},
    "ratio": 3.0,
    "methods": {"fft": None, "conv": 3.0},
    "auto": "conv",
    "regret": 0.667,
    "gflops": 50.0,
    "gbytes_per_s": 1.0,
    "skipped": {"torch.compile": "left out: no compiler"},
}
STEP = {
    **ROW,
    "task": "train_step",
    "peers": {"jax": 8.0, "torch": 4.0},
    "methods": {},
    "auto": None,
    "ratio": 2.0,
    "skipped": {},
}


def make_content(*rows, load=0.0):
    return {"rows": rows, "summary": throughput_report.summarize(rows), "peaks": PEAKS, "load_before": load}


def test_ratios_are_averaged_geometrically():
    rows = [ROW, {**ROW, "ratio": 12.0}, {**ROW, "ratio": None}]
    assert throughput_report.summarize(rows) == {"match": pytest.approx({"geometric_mean": 6, "smallest": 3})}
    assert throughput_report.summarize([{**ROW, "ratio": None, "peers": {}}]) == {}


def test_networks_are_compared_with_groups_of_libraries():
    summary = throughput_report.summarize([STEP])
    means = {name: ratio["geometric_mean"] for name, ratio in summary.items()}
    assert means == pytest.approx({"train_step": 2, "train_step, PyTorch": 2, "train_step, plain JAX": 4})


def test_tables_have_a_column_for_every_library_and_method():
    head, first, second = throughput_report.table([ROW, {**ROW, "peers": {}, "ratio": None}], PEAKS)
    assert head[2:10] == ["ours", "spread", "a", "torch", "fastest baseline / ours", "torch bfloat16", "fft", "conv"]
    assert first[2:10] == ["2", "12%", "9", "6", "3", "2.5", "-", "3"]
    assert second[4:7] == ["-", "-", "-"]
    assert head[10:13] == ["auto", "auto / best", "first call"]
    assert first[10:13] == ["conv", "0.667", "1.50"]
    assert first[-2:] == ["50 (50%)", "1 (10%)"]


def test_first_calls_stand_beside_those_of_plain_jax():
    head, row = throughput_report.table([{**STEP, "peers_first_call_s": {"jax": 0.25, "torch": 3.0}}], PEAKS)
    assert head[8:10] == ["first call", "jax's first call"]
    assert row[8:10] == ["1.50", "0.25"]


def test_more_operations_than_the_machine_can_do_were_not_done():
    _, row = throughput_report.table([{**ROW, "gflops": 100.1}], PEAKS)
    assert row[-2:] == ["-", "1 (10%)"]


def test_results_explain_themselves():
    content = make_content(ROW, STEP)
    blocks = throughput_report.results(content, {"match": "scores", "train_step": "networks"})
    assert [len(block) for block in blocks[:2]] == [2, 2]  # a table for each kind
    text = "\n".join(block for block in blocks if isinstance(block, str))
    assert "match 1x8x8, 1x3x3: torch.compile left out: no compiler" in text
    assert "match: the fastest baseline takes 3.00 times as long as cnn_jax" in text
    assert "100 GFLOP/s (matrix product) and 10.0 GB/s (sum)" in text
    assert "warning" not in text


def test_a_busy_machine_is_reported():
    blocks = throughput_report.results(make_content(ROW, load=2.3), {"match": "scores"})
    assert blocks[-1] == "warning: the load average was 2.3 before the run; timings are unreliable"
