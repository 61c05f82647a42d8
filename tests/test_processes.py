"""Agreement of processes: this one takes the other's place."""

import jax
import numpy as np
import pytest

from cnn_jax import _processes
from cnn_jax._processes import assert_same_step, gather_positions


@pytest.fixture
def two_processes(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)


def test_processes_that_find_different_checkpoints_are_an_error(tmp_path, monkeypatch, two_processes):
    monkeypatch.setattr(_processes.multihost_utils, "process_allgather", lambda step: np.array([step, 4], np.int32))
    assert_same_step(4, tmp_path)
    with pytest.raises(ValueError, match=r"a directory that all processes share, .* \[4, 8\]"):
        assert_same_step(8, tmp_path)


def test_positions_beyond_32_bits_are_gathered(monkeypatch, two_processes):
    gathered = []

    def allgather(halves):
        gathered.append(halves)
        return np.stack([halves, np.array([3, 4], np.int32)])

    monkeypatch.setattr(_processes.multihost_utils, "process_allgather", allgather)
    assert gather_positions(2**40 + 5) == [2**40 + 5, 3 * 2**31 + 4]
    assert gather_positions(None) is None
    assert [halves.dtype for halves in gathered] == [np.int32]  # 64 bits would be cut off without x64


def test_one_process_gathers_its_own_position():
    assert gather_positions(2**40) == [2**40]
    assert gather_positions(None) is None
