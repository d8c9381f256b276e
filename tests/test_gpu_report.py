"""The table of GPU programs: figures of hand-written HLO, and programs that run, here on a CPU."""

import re

import jax
import pytest

from benchmarks.gpu import programs
from benchmarks.gpu.card import CARDS
from benchmarks.gpu.counts import count
from benchmarks.gpu.report import HEADER, compiled_row
from cion_jax.runtime.mesh import make_mesh

# As XLA prints it: a loop of five products, and two all-reduces, of which nothing runs beside the second.
HLO = """HloModule jit_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%body (state: (s32[], bf16[64,32], bf16[32,32])) -> (s32[], bf16[64,32], bf16[32,32]) {
  %state = (s32[], bf16[64,32], bf16[32,32]) parameter(0)
  %turn = s32[] get-tuple-element(%state), index=0
  %x = bf16[64,32] get-tuple-element(%state), index=1
  %w = bf16[32,32] get-tuple-element(%state), index=2
  %dot = bf16[64,32] dot(%x, %w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %next = (s32[], bf16[64,32], bf16[32,32]) tuple(%turn, %dot, %w)
}

%condition (state.1: (s32[], bf16[64,32], bf16[32,32])) -> pred[] {
  %state.1 = (s32[], bf16[64,32], bf16[32,32]) parameter(0)
  ROOT %more = pred[] constant(true)
}

ENTRY %main (start: (s32[], bf16[64,32], bf16[32,32]), g: f32[1000], h: f32[500]) -> f32[1000] {
  %start = (s32[], bf16[64,32], bf16[32,32]) parameter(0)
  %g = f32[1000] parameter(1)
  %h = f32[500] parameter(2)
  %first = f32[1000] all-reduce-start(%g), to_apply=%add
  %loop = (s32[], bf16[64,32], bf16[32,32]) while(%start), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  %summed = f32[1000] all-reduce-done(%first)
  %second = f32[500] all-reduce-start(%h), to_apply=%add
  %summed.1 = f32[500] all-reduce-done(%second)
  ROOT %result = f32[1000] add(%summed, %summed)
}
"""  # noqa: E501


def test_a_program_is_counted_with_its_loops_and_its_communication():
    counts = count(HLO, CARDS["h200"])
    assert counts.products == {("dot", "bf16"): 5}
    assert counts.flops == 5 * 2 * 64 * 32 * 32
    assert counts.bytes == 5 * 2 * (64 * 32 + 32 * 32 + 64 * 32) + 4 * 3 * 1000
    assert (counts.kernels, counts.short) == (6, 6)
    assert (counts.all_reduces, counts.exposed, counts.reduced) == (2, 1, 4 * 1500)
    assert counts.seconds == pytest.approx(counts.bytes / 4.8e12)


@pytest.mark.slow
def test_a_program_that_runs_has_a_measured_time_beside_its_bound():
    program = programs.extraction("vit_test", make_mesh(jax.devices()[:1]), "float32")
    compiled = program.function.lower(*program.arguments).compile()
    cells = compiled_row(program, compiled, CARDS["h200"], 1.0, run=True).strip("| ").split(" | ")
    assert len(cells) == HEADER.splitlines()[0].count("|") - 1
    measured, share = map(float, re.fullmatch(r"(\S+) \((\S+)\)", cells[-1]).groups())
    assert measured > 0 and share == pytest.approx(float(cells[-3]) / measured, abs=0.01)
