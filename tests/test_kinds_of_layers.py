"""experiments.scores, run with --smoke as a user runs it."""

import json

import numpy as np
from scripts import SHORT, run

from experiments import scores


def test_a_first_try(tmp_path):
    run(tmp_path, "experiments.scores", "--smoke", **SHORT)
    found = json.loads((tmp_path / "runs" / "scores" / "metrics.json").read_text())
    assert list(found["kinds"]) == list(scores.KINDS)
    assert (tmp_path / "runs" / "scores" / "robustness.png").is_file()
    zncc = found["kinds"]["zncc"]["robustness"]
    assert np.ptp(zncc["brightness"] + zncc["contrast"]) < 0.02  # what zncc is for
    sizes = [row["parameters"] for row in found["kinds"].values()]
    assert max(sizes) < 1.02 * min(sizes)
