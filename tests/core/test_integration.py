"""The part that takes an input into a membrane, and what neurons show of it."""
# pyright: reportArgumentType=false, reportCallIssue=false

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnax import snn


DECAY = 0.75


def membrane_and_input():
    return jnp.array([0.5, -1.0, 2.0]), jnp.array([1.0, 0.25, -0.5])


@pytest.mark.parametrize("decay", [DECAY, snn.Factor(DECAY), snn.Rate(1 - DECAY)], ids=["number", "factor", "rate"])
@pytest.mark.parametrize("v_leak", [None, 0.5])
def test_a_membrane_decays_to_its_resting_potential_and_takes_up_its_drive(x64, decay, v_leak):
    v, x = membrane_and_input()
    rest = 0.0 if v_leak is None else v_leak
    unit = snn.Integration(decay, v_leak=v_leak)
    scaled = snn.Integration(decay, v_leak=v_leak, input_scale="one_minus_decay")
    np.testing.assert_allclose(unit.charge(v, x), rest + DECAY * (v - rest) + x, rtol=1e-12)
    np.testing.assert_allclose(scaled.charge(v, x), DECAY * v + (1 - DECAY) * (rest + x), rtol=1e-12)
    assert unit.v_rest == scaled.v_rest == rest


def test_without_a_synapse_the_drive_is_the_sum_of_the_inputs():
    v, x = membrane_and_input()
    drive, i = snn.Integration(DECAY).drive(None, v, x)
    np.testing.assert_array_equal(drive, v + x)
    assert i is None


@pytest.mark.parametrize(
    ("order", "drive", "current"),
    [
        ("decay-jump-read", lambda i, x: 0.5 * i + x, lambda i, x: 0.5 * i + x),
        ("jump-read-decay", lambda i, x: i + x, lambda i, x: 0.5 * (i + x)),
        ("read-decay-jump", lambda i, x: i, lambda i, x: 0.5 * i + x),
        ("jump-decay-read", lambda i, x: 0.5 * (i + x), lambda i, x: 0.5 * (i + x)),
    ],
)
def test_a_synapse_is_read_in_the_order_that_was_asked_for(x64, order, drive, current):
    part = snn.Integration([DECAY, 0.5], synapse_order=order)
    _, x = membrane_and_input()
    xs = jnp.stack([x, 2 * x, -x])
    first = jnp.array([1.0, 2.0, 3.0])
    i, found = first, []
    for x in xs:
        read, following = part.drive(i, x)
        np.testing.assert_allclose(read, drive(i, x), rtol=1e-12)
        np.testing.assert_allclose(following, current(i, x), rtol=1e-12)
        i = following
        found.append((read, following))
    drives, currents = part.drive_sequence(first, xs)
    np.testing.assert_allclose(drives, jnp.stack([read for read, _ in found]), rtol=1e-12)
    np.testing.assert_allclose(currents, jnp.stack([i for _, i in found]), rtol=1e-12)


def test_every_number_of_it_has_a_gradient(x64):
    part = snn.Integration([0.9, 0.5], v_leak=0.3, input_scale="one_minus_decay")
    v, x = membrane_and_input()

    def loss(part):
        drive, i = part.drive(v, x)
        return jnp.sum(part.charge(v, drive)) + jnp.sum(i)

    leaves = jax.tree.leaves(jax.grad(loss)(part))
    assert len(leaves) == 3 and all(leaf != 0 for leaf in leaves)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decay_constants": [0.9, 0.8, 0.7]}, r"\[membrane\] or \[membrane, synapse\], found 3 values"),
        ({"decay_constants": []}, "found 0 values"),
        ({"synapse_order": "read"}, "synapse_order must be one of .*, found 'read'"),
        ({"input_scale": "half"}, "input_scale must be 'unit' or 'one_minus_decay', found 'half'"),
    ],
)
@pytest.mark.parametrize("build", [snn.Integration, lambda **options: snn.LIF(3, **options)], ids=["part", "neuron"])
def test_options_that_are_unknown_are_refused(unchecked, build, options, message):
    with pytest.raises(ValueError, match=message):
        build(**{"decay_constants": 0.9, **options})


@pytest.mark.parametrize(
    "build",
    [
        lambda **options: snn.LIF(3, 0.9, **options),
        lambda **options: snn.ALIF(3, 0.9, 0.9, **options),
        lambda **options: snn.AdEx(3, 0.9, 0.9, **options),
    ],
)
def test_a_name_that_is_no_option_is_refused(unchecked, build):
    with pytest.raises(TypeError, match="unexpected keyword argument 'v_leek'"):
        build(v_leek=0.1)


@pytest.mark.parametrize("kind", [snn.EIF, snn.AdEx, snn.LSNN])
def test_neurons_whose_drive_is_always_scaled_take_no_scale(unchecked, kind):
    adaptation = () if kind is snn.EIF else (0.9,)
    assert kind(3, [0.9, 0.8], *adaptation).input_scale == "one_minus_decay"
    with pytest.raises(TypeError, match="multiple values for keyword argument 'input_scale'"):
        kind(3, [0.9, 0.8], *adaptation, input_scale="unit")


NEURONS = {
    "LIF": snn.LIF(3, [0.9, 0.8], v_leak=0.1, synapse_order="jump-read-decay", input_scale="one_minus_decay"),
    "LI": snn.LI(3, [0.9, 0.8], v_leak=0.1, synapse_order="jump-read-decay", input_scale="one_minus_decay"),
    "ALIF": snn.ALIF(3, [0.9, 0.8], 0.9, v_leak=0.1, synapse_order="jump-read-decay", input_scale="one_minus_decay"),
    "LSNN": snn.LSNN(3, [0.9, 0.8], 0.9, v_leak=0.1, synapse_order="jump-read-decay"),
    "EIF": snn.EIF(3, [0.9, 0.8], v_leak=0.1, synapse_order="jump-read-decay"),
}


@pytest.mark.parametrize("name", NEURONS)
def test_a_neuron_shows_its_decays_and_conventions(name):
    neuron = NEURONS[name]
    np.testing.assert_allclose(neuron.decay_mem.factor, 0.9, rtol=1e-6)
    np.testing.assert_allclose(neuron.decay_syn.factor, 0.8, rtol=1e-6)
    np.testing.assert_allclose(neuron.v_leak, 0.1, rtol=1e-6)
    assert (neuron.synapse_order, neuron.input_scale) == ("jump-read-decay", "one_minus_decay")


@pytest.mark.parametrize("name", NEURONS)
def test_what_a_neuron_shows_can_be_exchanged(name):
    where = lambda neuron: (neuron.decay_mem.value, neuron.v_leak)  # noqa: E731
    changed = eqx.tree_at(where, NEURONS[name], (jnp.array(0.25), jnp.array(0.75)))
    assert float(changed.decay_mem.factor) == 0.25
    assert float(changed.integration.v_rest) == 0.75
    assert float(changed.init_state().v[0]) == 0.75


def test_neurons_of_one_membrane_say_what_it_keeps():
    assert float(snn.IF(3).decay_mem.factor) == 1.0
    np.testing.assert_allclose(snn.Lapicque(3, 5.0, 2.0, dt=0.5).decay_mem.factor, 0.95, rtol=1e-6)
