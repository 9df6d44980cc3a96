"""Parameters outside of their domain are refused where a layer is built, with the value and what to write instead."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnax import snn, surrogate
from snnax.domains import FRACTION, KEPT, NUMBER, POSITIVE, check, parameters_as_given


NAN = float("nan")
WRONG_DECAYS = [20.0, -1.0, 0.0, 1.5, NAN, [0.9, 20.0], np.float64(20.0), jnp.array([0.5, -0.1])]
TAKES_DECAY = {
    "LIF": lambda decay: snn.LIF(2, decay),
    "LIF, synapse": lambda decay: snn.LIF(2, [0.9, decay]),
    "LI": lambda decay: snn.LI(2, decay),
    "CubaLI": lambda decay: snn.CubaLI(2, [0.9, decay]),
    "ALIF": lambda decay: snn.ALIF(2, 0.9, decay),
    "AdaptiveLIF": lambda decay: snn.AdaptiveLIF(2, 0.9, decay),
    "LSNN": lambda decay: snn.LSNN(2, [decay, 0.9], 0.9),
    "EIF": lambda decay: snn.EIF(2, decay),
    "AdEx": lambda decay: snn.AdEx(2, 0.9, decay),
    "QIF": lambda decay: snn.QIF(2, decay),
    "SRM": lambda decay: snn.SRM(2, [0.9, decay, 0.9]),
}


@pytest.mark.parametrize("decay", WRONG_DECAYS, ids=str)
@pytest.mark.parametrize("kind", TAKES_DECAY)
def test_a_decay_factor_is_above_0_and_at_most_1(kind, decay):
    if isinstance(decay, list):
        decay = np.array(decay)
    with pytest.raises(ValueError, match=r"a decay factor must be above 0 and at most 1, found .*from_tau.*snn\.Rate"):
        TAKES_DECAY[kind](decay)
    TAKES_DECAY[kind](1.0)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: snn.Rate(1.5), r"a decay rate must be from 0 to 1, found 1.5; a rate is dt / tau"),
        (lambda: snn.Factor(-0.1), r"a decay factor must be from 0 to 1, found -0.1"),
        (lambda: snn.SigmaDelta(2, [1.0, 0.0, 1.1]), "a decay factor must be from 0 to 1, found 1.1"),
        (lambda: snn.EIF.from_tau(2, 1e-3, dt=2e-3), "a time constant is at least one time step, found tau=0.001"),
        (lambda: snn.SigmoidRate(NAN), "the logit of a rate must be a number, found nan"),
        (lambda: snn.LIF(2, 0.9, -1.0), r"threshold - resting potential must be above 0, found -1"),
        (lambda: snn.LIF(2, 0.9, 0.0), "at rest must not spike"),
        (lambda: snn.IF(2, np.array([0.5, -0.5])), "must be above 0, found -0.5 among 2 values"),
        (lambda: snn.LIF(2, 0.9, 1.0, v_leak=1.5), "threshold - resting potential must be above 0, found -0.5"),
        (lambda: snn.Alpha(2, 0.9, 0.8, -1.0), "threshold must be above 0, found -1"),
        (lambda: snn.SRM(2, [0.9, 0.9, 0.9], 0.0), "threshold must be above 0, found 0"),
        (lambda: snn.LIF(2, 0.9, NAN), "threshold must be a number, found nan"),
        (lambda: snn.LIF(2, 0.9, reset=NAN), "reset must be a number, found nan"),
        (lambda: snn.LIF(2, 0.9, v_leak=NAN), "v_leak must be a number, found nan"),
        (lambda: snn.LIF(2, 0.9, amplitude=NAN), "amplitude must be a number, found nan"),
        (lambda: snn.ALIF(2, 0.9, 0.9, scale=NAN), "scale must be a number, found nan"),
        (lambda: snn.AdaptiveLIF(2, 0.9, 0.9, jump=NAN), "jump must be a number, found nan"),
        (lambda: snn.EIF(2, 0.9, delta_T=0.0), "delta_T must be above 0, found 0"),
        (lambda: snn.QIF(2, 0.9, gain=NAN), "gain must be a number, found nan"),
        (lambda: snn.Izhikevich(2, dt=0.0), "dt must be above 0, found 0"),
        (lambda: snn.Izhikevich(2, a=NAN), "a must be a number, found nan"),
        (lambda: snn.Lapicque(2, 0.0, 1.0), "resistance must be above 0, found 0"),
        (lambda: snn.Lapicque(2, 1.0, -1.0), "capacitance must be above 0, found -1"),
        (lambda: snn.Lapicque(2, 1.0, 0.5), r"dt / \(resistance \* capacitance\) must be from 0 to 1, found 2"),
        (lambda: snn.Refractory(snn.IF(2), np.array([1.0, -2.0])), "period must be 0 or more, found -2 among 2 values"),
        (lambda: snn.OneToOne(NAN), "weight must be a number, found nan"),
        (lambda: snn.LeakyParallel(2, 2, decay=1.5, key=jax.random.key(0)), "decay must be from 0 to 1, found 1.5"),
        (lambda: snn.BatchNorm(2, momentum=1.5), "momentum must be from 0 to 1, found 1.5"),
        (lambda: snn.BatchNorm(2, epsilon=-1e-5), "epsilon must be 0 or more, found -1e-05"),
        (lambda: surrogate.SuperSpike(0.0), "slope must be above 0, found 0"),
        (lambda: surrogate.FastSigmoid(-25.0), "slope must be above 0, found -25"),
        (lambda: surrogate.Sigmoid(NAN), "slope must be above 0, found nan"),
        (lambda: surrogate.ATan(-2.0), "alpha must be above 0, found -2"),
        (lambda: surrogate.Triangular(width=0.0), "width must be above 0, found 0"),
    ],
)
def test_a_parameter_outside_of_its_domain_is_refused_by_name(build, message):
    with pytest.raises(ValueError, match=message):
        build()
    with parameters_as_given():
        if "at least one time step" not in message:
            build()


@pytest.mark.parametrize(
    ("value", "domain", "inside"),
    [
        (0.0, FRACTION, True),
        (1, FRACTION, True),
        (0.0, KEPT, False),
        (np.nextafter(1.0, 2.0), KEPT, False),
        (jnp.bfloat16(0.5), KEPT, True),
        (float("inf"), NUMBER, True),
        (float("inf"), POSITIVE, True),
        (np.zeros((0, 3)), KEPT, True),
        (None, POSITIVE, True),
        ("steep", POSITIVE, True),  # refused by what takes it as an array
    ],
)
def test_bounds_belong_to_a_domain_or_do_not(value, domain, inside):
    if inside:
        check("it", value, domain)
        return
    with pytest.raises(ValueError, match="it must be"):
        check("it", value, domain)


def test_values_that_are_traced_are_not_checked():
    batch = jax.vmap(lambda decay: snn.LIF(2, decay).decay_mem.factor)(jnp.array([0.5, 20.0]))
    assert batch.tolist() == [0.5, 1.0], "a factor is limited in the forward pass"
    with pytest.raises(ValueError, match="found 20"):
        snn.LIF(2, jnp.array(20.0))


def test_checks_are_back_after_an_error():
    with pytest.raises(LookupError), parameters_as_given():
        raise LookupError
    with pytest.raises(ValueError, match="found 20"):
        snn.LIF(2, 20.0)
