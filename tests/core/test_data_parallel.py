"""A batch spread over eight devices gives the gradients of one. Devices are counted when JAX starts: a new process."""

import os
import subprocess
import sys

import pytest


pytestmark = pytest.mark.full


PROGRAM = """
import functools
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from snnax import engine, snn

run_with = getattr(engine, sys.argv[1])
assert jax.device_count() == 8
keys = jax.random.split(jax.random.key(0), 5)


def make_model(axis_name):
    return snn.Sequential(
        eqx.nn.Conv2d(2, 4, 3, key=keys[0]),
        snn.BatchNorm(4, axis_name=axis_name),
        snn.LIF((4, 6, 6), [0.9, 0.8], 0.5),
        snn.MaxPool(2),
        snn.flatten(),
        snn.Dropout(0.3),
        eqx.nn.Linear(36, 8, key=keys[1]),
        snn.Recurrent(snn.ALIF(8, 0.9, 0.95, scale=0.5), eqx.nn.Linear(8, 8, key=keys[2])),
        snn.LI(8, 0.9),
    )


model = make_model("batch")
xs = jax.random.uniform(keys[3], (32, 12, 2, 8, 8))


@eqx.filter_jit
@eqx.filter_value_and_grad(has_aux=True)
def value_and_gradients(model, xs, keys):
    states = model.init_states(input_shape=(2, 8, 8))
    sample = lambda xs, key: model(states, xs, key, engine=run_with)
    _, outs = jax.vmap(sample, axis_name="batch")(xs, keys)
    return jnp.mean(outs[-1] ** 2), (outs[-1], outs[2].sum(), outs[7].sum())


dropout_keys = jax.random.split(keys[4], 32)
expected = value_and_gradients(model, xs, dropout_keys)
mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
over_batch, everywhere = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("data",), ()))
spread = eqx.filter_shard(model, everywhere), *jax.device_put((xs, dropout_keys), over_batch)
found = value_and_gradients(*spread)

(_, (outs, *spikes)), gradients = found
assert {shard.data.shape for shard in outs.addressable_shards} == {(4, 12, 8)}, "the batch was not spread"
leaves = jax.tree.leaves(gradients)
assert all(leaf.sharding.is_fully_replicated and len(leaf.devices()) == 8 for leaf in leaves)
assert min(spikes) > 100, "silent neurons prove nothing"
assert sum(bool(jnp.any(leaf != 0)) for leaf in leaves) >= len(leaves) - 2, "only mean and variance have no gradient"
assert jax.tree.structure(found) == jax.tree.structure(expected)


def assert_all_close(found, expected):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


assert_all_close(found, expected)

# Each device takes the gradient of its samples, and only batch normalisation and the mean reach across devices
params, static = eqx.partition(make_model(("data", "batch")), eqx.is_inexact_array)


@jax.jit
@functools.partial(
    jax.shard_map,
    mesh=mesh,
    in_specs=(PartitionSpec(), PartitionSpec("data"), PartitionSpec("data")),
    out_specs=PartitionSpec(),
    check_vma=False,
)
def mean_over_devices(params, xs, keys):
    (value, (_, *spikes)), gradients = value_and_gradients(eqx.combine(params, static), xs, keys)
    values = jax.lax.pmean((value, eqx.filter(gradients, eqx.is_inexact_array)), "data")
    return values, jax.lax.psum(spikes, "data")


found = mean_over_devices(eqx.filter_shard(params, everywhere), *spread[1:])
assert_all_close(found, ((expected[0][0], eqx.filter(gradients, eqx.is_inexact_array)), spikes))
"""


# Events that are spread over devices are binned where they are, when `vmap` maps over them and within `shard_map`
EVENTS = """
import re

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from snnax.events import frames_by_count, frames_by_time, pack, time_surfaces, voxel_grid

assert jax.device_count() == 8
rng = np.random.default_rng(0)
recordings = [np.zeros(count, [(name, int) for name in "xytp"]) for count in range(100, 116)]
for recording in recordings:
    for name, size in (("x", 6), ("y", 5), ("p", 2), ("t", 1000)):
        recording[name] = rng.integers(0, size, len(recording))
events = pack(recordings, (6, 5, 2), sort=True)
mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
spread = jax.device_put(events, NamedSharding(mesh, PartitionSpec("data")))
assert {shard.data.shape for shard in spread.data.addressable_shards} == {(2, 2, 256)}


def by_device(binning):
    specs = PartitionSpec("data"), PartitionSpec(None, "data")
    return jax.shard_map(binning, mesh=mesh, in_specs=specs[0], out_specs=specs[1], check_vma=False)


for binning in (
    lambda events: frames_by_time(events, 7, 100),
    lambda events: frames_by_count(events, 7),
    lambda events: voxel_grid(events, 7),
    lambda events: time_surfaces(events, 7, 100, 300.0),
):
    expected = np.asarray(binning(events))
    assert np.count_nonzero(expected) > 1000
    for spread_out in (jax.vmap(binning, out_axes=1), by_device(binning)):
        compiled = jax.jit(spread_out).lower(spread).compile()
        assert not re.search(r" (all-|collective-|reduce-scatter)[a-z-]*[(]", compiled.as_text())
        found = compiled(spread)
        assert {shard.data.shape[1] for shard in found.addressable_shards} == {2}
        np.testing.assert_allclose(found, expected, rtol=0, atol=5e-6)  # float32
"""


# `shard_map` with its defaults tracks what differs over devices: states begin the same on all, and do not stay so
DEFAULTS = """
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from snnax import engine, snn

keys = jax.random.split(jax.random.key(0), 8)
linear = lambda key: eqx.nn.Linear(3, 3, key=key)
neuron = snn.ALIF(3, 0.9, 0.9, 0.3)
edges = {"fc": "input", "back": snn.Previous("lif"), "lif": ["fc", "back"], "out": ["lif", snn.Previous("fc")]}
MODELS = [
    snn.Sequential(
        linear(keys[0]),
        snn.LIF(3, [0.9, 0.8], 0.3, reset="none"),
        snn.Dropout(0.3),
        snn.Recurrent(snn.LIF(3, 0.9, 0.3), snn.Sequential(linear(keys[1]), snn.Delay(jnp.ones(3)))),
        snn.SLSTM(3, 3, 0.01, key=keys[2]),
        snn.SpikeCounter(3),
    ),
    snn.Graph({"fc": linear(keys[3]), "back": linear(keys[4]), "lif": neuron, "out": snn.LI(3, 0.5)}, edges, "out"),
]
mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
xs = 2 * jax.random.normal(keys[5], (16, 5, 3))
masks = jnp.arange(5)[None] < jnp.arange(1, 17)[:, None]

for model in MODELS:
    params, static = eqx.partition(model, eqx.is_inexact_array)
    for run in (engine.stepwise, engine.layerwise, engine.checkpointed, engine.parallel):
        for masked in (False, True) if run is engine.checkpointed else (False,):

            def value_and_gradients(params, xs, masks):
                def loss(params):
                    model = eqx.combine(params, static)

                    def sample(xs, mask):
                        states = model.init_states(input_shape=(3,))
                        after, outs = model(states, xs, keys[6], engine=run, mask=mask if masked else None)
                        return (outs[-1] ** 2).sum()

                    return jax.vmap(sample)(xs, masks).sum()

                return jax.value_and_grad(loss)(params)

            expected = jax.jit(value_and_gradients)(params, xs, masks)

            def on_a_device(params, xs, masks):
                value, gradients = value_and_gradients(params, xs, masks)
                return jax.lax.psum(value, "data"), gradients  # these are summed where the parameters were spread

            specs = P(), P("data"), P("data")
            found = jax.jit(jax.shard_map(on_a_device, mesh=mesh, in_specs=specs, out_specs=P()))(params, xs, masks)
            assert expected[0] > 1 and all(jnp.any(leaf != 0) for leaf in jax.tree.leaves(expected[1]))
            for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)
"""


def run_on_eight_devices(program, *arguments):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_ENABLE_X64": "1", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    command = [sys.executable, "-c", program, *arguments]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize("engine", ["layerwise", "checkpointed"])
def test_a_batch_on_eight_devices_gives_the_gradients_of_one(engine):
    run_on_eight_devices(PROGRAM, engine)


def test_shard_map_with_its_defaults_gives_the_gradients_of_one_device_in_all_engines():
    run_on_eight_devices(DEFAULTS)


def test_events_on_eight_devices_are_binned_where_they_are():
    run_on_eight_devices(EVENTS)
