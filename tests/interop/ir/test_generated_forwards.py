"""Forwards that are written at random: what the passes make of them computes the same at another batch and length."""

import pytest
from helpers.forwards import built, inputs, written
from helpers.programs import assert_program_computes, compute, trace
from hypothesis import HealthCheck, given, note, settings, strategies as st


pytestmark = pytest.mark.usefixtures("double_precision")


@st.composite
def sources(draw) -> str:
    return written(lambda options: draw(st.sampled_from(options)))


@settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(source=sources())
def test_a_forward_of_the_grammar_is_a_program_that_computes_the_same(source):
    note(source)
    module, time = built(source)
    network = trace(module, (inputs(time, 3, 6),))
    elsewhere = (inputs(time, 2, 9),)
    expected = compute(module, network.expected, elsewhere)
    assert any(bool(gradient.any()) for gradient in expected.gradients.values())
    for program in (network.first, network.last):
        program.check()
        assert_program_computes(network, program, elsewhere, expected)
