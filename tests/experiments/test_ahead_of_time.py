import jax
import jax.numpy as jnp
import pytest

from experiments._lib.ahead_of_time import TARGETS, compile_for, count_operations, devices_of

HLO = """HloModule jit_f
%fused (p: f32[4]) -> f32[4] {
  %p = f32[4]{0} parameter(0)
  ROOT %copy.1 = f32[4]{0} copy(%p)
}
ENTRY %main (a: f32[4]) -> (f32[4], f32[]) {
  %a = f32[4]{0:T(128)} parameter(0)
  fusion.2 = f32[4]{0} fusion(%a), kind=kLoop, calls=%fused, metadata={op_name="jit(f)/copy("}
  %call = (f32[4]{0:T(128)}, /*index=1*/u8[0]{0}) custom-call(fusion.2), custom_call_target="__cudnn$convForward"
  %start = f32[4]{0} all-reduce-start(%a), to_apply=%sum
  %done = f32[4]{0} all-reduce-done(%start)
  ROOT %select-and-scatter.3 = f32[] select-and-scatter(%a, %a), select=%ge
}
"""


def test_every_instruction_of_a_module_is_counted_once():
    once = ("copy", "fusion", "custom-call", "select-and-scatter", "all-reduce", "all-reduce-done")
    assert count_operations(HLO) == {"parameter": 2} | dict.fromkeys(once, 1)


def test_a_program_is_compiled_for_shapes():
    program = compile_for(jax.devices("cpu")[:1], jnp.dot, (jax.ShapeDtypeStruct((8, 8), jnp.float32),) * 2)
    assert program.compile_seconds > 0
    assert program.flops == 2 * 8**3
    assert program.bytes_accessed == 3 * 4 * 8**2
    assert program.temporary_bytes == 0
    assert program.operations["dot"] == 1
    assert not program.custom_calls


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_without_its_compiler_is_refused(name, monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("no plug-in\nof that platform")

    monkeypatch.setattr("jax.experimental.topologies.get_topology_desc", fail)
    with pytest.raises(ValueError, match=f"--targets: {name} cannot be compiled for: no plug-in; it needs the extra"):
        devices_of(name)
