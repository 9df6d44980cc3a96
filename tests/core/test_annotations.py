"""The tests run with the annotations of snnax switched on; a switch that is off would show here."""
# pyright: reportArgumentType=false

import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from snnax import snn, surrogate


INTEGERS = jnp.arange(3)
STATE = snn.LIF(3, 0.9).init_state()


@pytest.mark.parametrize(
    "call",
    [
        lambda: surrogate.ATan()(INTEGERS),
        lambda: snn.LIF(3, 0.9)(STATE, np.zeros(3)),
        lambda: snn.LIF(3, 0.9)(INTEGERS, jnp.zeros(3)),
        lambda: snn.NeuronState(INTEGERS),
        lambda: snn.LIF("3", 0.9),
        lambda: snn.LIF(3, 0.9, reset_delay="later"),
    ],
)
def test_an_argument_of_the_wrong_type_is_refused(call):
    with pytest.raises(jaxtyping.TypeCheckError, match="Type-check error"):
        call()
