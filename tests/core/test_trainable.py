"""The filter of what learns: seen by an optimiser with weight decay, which moves all that it is given."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytest

from snnax import snn


@pytest.fixture
def model(getkey):
    inner = snn.Graph(
        {
            "conv": eqx.nn.Linear(3, 3, key=getkey()),
            "norm": snn.BatchNorm(3, axis_name="batch"),
            "lif": snn.LIF(3, [0.9, 0.8], 0.5),
        },
        {"conv": "input", "norm": "conv", "lif": "norm"},
        outputs="lif",
    )
    return snn.Sequential(
        inner, snn.BatchNorm(3, axis_name="batch"), eqx.nn.Linear(3, 2, key=getkey()), snn.LIF(2, 0.7)
    )


def names(tree):
    return [jax.tree_util.keystr(path) for path, leaf in jax.tree.leaves_with_path(tree) if eqx.is_array(leaf)]


def moved(model, spec):
    """The paths of the leaves that one update with weight decay changes."""
    learning, rest = eqx.partition(model, spec)

    @eqx.filter_jit
    def update(learning):
        def loss(learning):
            model = eqx.combine(learning, rest)
            run = lambda xs: model(model.init_states(input_shape=(3,)), xs)[1][-1]  # noqa: E731
            return jax.vmap(run, axis_name="batch")(jnp.arange(24.0).reshape(2, 4, 3) % 5).sum()

        # The schedules of optax mix integers and floats.
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            optimizer = optax.adamw(1e-2, weight_decay=0.5)
            updates, _ = optimizer.update(eqx.filter_grad(loss)(learning), optimizer.init(learning), learning)
        return eqx.apply_updates(learning, updates)

    after = eqx.combine(update(learning), rest)
    assert jax.tree.structure(after) == jax.tree.structure(model)
    pairs = zip(jax.tree.leaves_with_path(model), jax.tree.leaves(after), strict=True)
    return {jax.tree_util.keystr(path) for (path, a), b in pairs if eqx.is_array(a) and not jnp.array_equal(a, b)}


def zero(name):
    """A bias that starts at zero, where weight decay does nothing, and without a gradient nothing else either."""
    return name.endswith("bias")


def test_everything_learns_but_running_statistics(model):
    statistics = {name for name in names(model) if name.endswith((".mean", ".var"))}
    assert len(statistics) == 4
    expected = {name for name in names(model) if not zero(name)} - statistics
    assert {name for name in moved(model, snn.trainable(model)) if not zero(name)} == expected
    # The usual filter would have let the optimiser shrink the variances.
    assert any(name.endswith(".var") for name in moved(model, jax.tree.map(eqx.is_inexact_array, model)))


@pytest.mark.parametrize(
    ("fixed", "count"), [(["threshold"], 2), (["decay_mem", "decay_syn"], 3), (["conv"], 2), (["firing", "lif"], 4)]
)
def test_fields_and_nodes_are_fixed_by_name(model, fixed, count):
    everything = set(names(eqx.filter(model, snn.trainable(model))))
    left = set(names(eqx.filter(model, snn.trainable(model, fixed=fixed))))
    assert len(everything - left) == count
    assert all(any(name in path for name in fixed) for path in everything - left)
    assert not moved(model, snn.trainable(model, fixed=fixed)) & (everything - left)


def test_a_name_that_is_not_there_is_refused(model):
    with pytest.raises(ValueError, match=r"no float arrays under 'treshold'; it has .*'threshold'"):
        snn.trainable(model, fixed=["threshold", "treshold"])


def test_the_filter_works_under_transformations(model):
    @eqx.filter_jit
    def count(model):
        return jnp.array(len(jax.tree.leaves(eqx.filter(model, snn.trainable(model)))))

    assert count(model) == len(jax.tree.leaves(eqx.filter(model, snn.trainable(model))))
