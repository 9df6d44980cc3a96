"""Every network of the zoo as a program that torch runs, at another batch size and length: the network itself."""

import pytest
from helpers.compare import tensors_of
from helpers.programs import NETWORKS, assert_program_computes, compute, traced, widened


pytestmark = pytest.mark.usefixtures("double_precision")

by_network = pytest.mark.parametrize("name", NETWORKS)


@by_network
def test_programs_compute_what_the_network_computes_at_another_batch_size_and_length(name):
    """The first program shows that tracing, rolling and unifying are right; the last, that the other passes are."""
    network, case = traced(name), NETWORKS[name]
    for program in network.programs.values():
        program.check()
    inputs = widened(case.inputs(case.other, 11))
    expected = compute(network.module, network.expected, inputs)
    assert any(bool(out.any()) for out in tensors_of(expected.outputs))
    assert {each for each in expected.flat if each in dict(network.module.named_parameters())} <= set(case.inert)
    for program in (network.first, network.last):
        assert_program_computes(network, program, inputs, expected)
