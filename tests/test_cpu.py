"""What `configure_cpu` sets, and when it is too late; in processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import cnn_jax
from cnn_jax import _cpu

ROOT = Path(__file__).parents[1]
FLAG = "--xla_cpu_experimental_ynn_fusion_type"


def run(code, **environment):
    """What a process prints, and its exit code."""
    given = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    command = [sys.executable, "-W", "error", "-c", f"import os, jax, cnn_jax\n{code}"]
    return subprocess.run(
        command, env=given | environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )


def test_importing_sets_nothing_and_a_call_everything():
    code = """
before = os.environ.get("XLA_FLAGS"), jax.config.values["jax_cpu_enable_async_dispatch"]
devices = jax.config.jax_num_cpu_devices
cnn_jax.configure_cpu()
cnn_jax.configure_cpu()
after = os.environ.get("XLA_FLAGS"), jax.config.values["jax_cpu_enable_async_dispatch"]
assert jax.config.jax_num_cpu_devices == devices
assert jax.numpy.arange(3).sum() == 3
cnn_jax.configure_cpu()
import json
print(json.dumps([before, after]))
"""
    done = run(code)
    assert done.returncode == 0, done.stderr
    before, after = json.loads(done.stdout)
    assert before == [None, True]
    assert after == [f"{FLAG}={_cpu.FLAGS[FLAG]}", False]


def test_a_call_after_the_first_computation_is_refused():
    done = run("jax.numpy.ones(2)\ncnn_jax.configure_cpu()")
    assert done.returncode == 1
    assert "RuntimeError: configure_cpu: expected a call before JAX's first computation" in done.stderr
    assert f"XLA_FLAGS='{FLAG}=" in done.stderr


def test_a_late_call_with_the_settings_in_the_environment_is_not_too_late():
    done = run(
        "jax.numpy.ones(2)\ncnn_jax.configure_cpu()", JAX_CPU_ENABLE_ASYNC_DISPATCH="false", XLA_FLAGS=f"{FLAG}="
    )
    assert done.returncode == 0, done.stderr


def test_flags_of_the_user_are_kept():
    given = f"{FLAG}=individual_convolution --xla_cpu_prefer_vector_width=512"
    done = run("cnn_jax.configure_cpu(); jax.numpy.ones(2); print(os.environ['XLA_FLAGS'])", XLA_FLAGS=given)
    assert done.stdout.strip() == given, done.stderr


def test_a_later_jaxlib_gets_no_flags(monkeypatch):
    monkeypatch.setattr(_cpu, "jaxlib_version", "0.13.0")
    monkeypatch.setattr(_cpu, "_jax_has_started", lambda: False)
    monkeypatch.setenv("XLA_FLAGS", "")
    _cpu._configure.cache_clear()
    cnn_jax.configure_cpu()
    assert os.environ["XLA_FLAGS"] == ""


def test_this_process_is_configured():
    if os.environ.get("CNN_JAX_TEST_CPU") == "default":
        pytest.skip("this run is to have XLA's own settings")
    assert FLAG in os.environ["XLA_FLAGS"]
    assert not jax.config.values["jax_cpu_enable_async_dispatch"]
