"""The neurons of `snnax.snn` at work: one figure, `docs/gallery.png`.

Every panel is one neuron with a step current: its membrane potential, its threshold (dashed), its spikes (marks above)
and, below, the current.
"""

import argparse
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from snnax import snn


# Okabe and Ito's colours, which colour-blind readers tell apart.
BLUE, VERMILLION, GREEN = "#0072B2", "#D55E00", "#009E73"
INK, GREY, PALE = "#222222", "#767676", "#F0F0F0"
OUTPUT = pathlib.Path(__file__).parent.parent / "docs" / "gallery.png"
NUM_STEPS, ONSET, OFFSET = 120, 15, 100  # of the dimensionless neurons, in ms: dt is 1 ms
COLUMNS = 6


class Panel(NamedTuple):
    title: str
    note: str
    layer: snn.AbstractLayer
    current: np.ndarray
    dt: float = 1.0  # ms
    threshold: Callable[[Any], Any] | None = None  # from all states, where it moves


def step(amplitude: float, num_steps: int = NUM_STEPS, onset: int = ONSET, offset: int = OFFSET) -> np.ndarray:
    current = np.zeros(num_steps, np.float32)
    current[onset:offset] = amplitude
    return current


def dimensionless() -> list[Panel]:
    """Membrane potentials in units of the threshold, with time constants in seconds."""
    dt, tau = 1e-3, 15e-3
    alif = snn.ALIF.from_tau(1, tau, 60e-3, dt=dt, scale=1.0, jump=0.5)

    def moved(states: Any) -> jax.Array:
        # What a spike of this step was compared with is the trace before the step.
        before = jnp.concatenate([jnp.zeros((1, 1)), states.a[:-1]])
        return alif.adaptation.threshold(alif.firing.threshold, before)

    srm = snn.SRM.from_tau(1, 15e-3, 4e-3, 25e-3, dt=dt, response=2.0)
    return [
        Panel("LIF", "leaky integrate-and-fire", snn.LIF.from_tau(1, tau, dt=dt), step(0.12)),
        Panel("LIF, synapse", "exponential synaptic current", snn.LIF.from_tau(1, tau, 8e-3, dt=dt), step(0.016)),
        Panel("IF", "forgets nothing", snn.IF(1), step(0.08)),
        Panel("ALIF", "threshold adapts", alif, step(0.2), threshold=moved),
        Panel("AdaptiveLIF", "current adapts", snn.AdaptiveLIF.from_tau(1, tau, 60e-3, dt=dt, jump=0.03), step(0.2)),
        Panel("PLIF", "learnable decay", snn.PLIF.from_tau(1, tau, dt=dt), step(1.6)),
        Panel("EIF", "exponential upswing", snn.EIF.from_tau(1, tau, dt=dt, delta_T=0.2, theta_rh=0.6), step(0.75)),
        Panel(
            "AdEx", "upswing and adaptation",
            snn.AdEx.from_tau(1, tau, 80e-3, dt=dt, jump=0.12, delta_T=0.2, theta_rh=0.6), step(0.95),
        ),
        Panel("QIF", "quadratic upswing", snn.QIF.from_tau(1, tau, dt=dt, gain=4.0, v_critical=0.5), step(0.5)),
        Panel("Alpha", "difference of exponentials", snn.Alpha.from_tau(1, 12e-3, 6e-3, dt=dt), step(0.12)),
        Panel("SRM", "never reset: own response", srm, step(0.05)),
        Panel("Refractory(LIF)", "10 ms of silence", snn.Refractory(snn.LIF.from_tau(1, tau, dt=dt), 10), step(0.14)),
    ]  # fmt: skip


def behaviour(name: str, amplitude: float, milliseconds: float, onset: float, offset: float | None = None) -> Panel:
    neuron = snn.Izhikevich.named(name, 1)
    num_steps = int(milliseconds / neuron.dt)
    end = num_steps if offset is None else int(offset / neuron.dt)
    current = step(amplitude, num_steps, int(onset / neuron.dt), end)
    return Panel("Izhikevich", name.replace("_", " "), neuron, current, neuron.dt)


def behaviours() -> list[Panel]:
    """Six of the twenty, with the currents of Izhikevich 2004, figure 1; mV and ms."""
    return [
        behaviour("tonic_spiking", 14.0, 100, 10),
        behaviour("phasic_spiking", 0.5, 200, 20),
        behaviour("tonic_bursting", 15.0, 220, 22),
        behaviour("mixed_mode", 10.0, 160, 16),
        behaviour("spike_frequency_adaptation", 30.0, 85, 8.5),
        behaviour("rebound_burst", -15.0, 200, 20, 25),
    ]


@eqx.filter_jit
def simulate(layer: snn.AbstractLayer, current: jax.Array) -> tuple[Any, jax.Array]:
    """All states, and the spikes, of one neuron."""

    def body(state, x):
        state, spikes = layer(state, x[None])
        return state, (state, spikes)

    _, (states, spikes) = jax.lax.scan(body, layer.init_state((1,)), current)
    return states, spikes[:, 0]


def draw(figure: Any, panel: Panel, units: str) -> int:
    """Fill a cell of the figure; returns the number of spikes."""
    states, spikes = simulate(panel.layer, jnp.asarray(panel.current))
    v = np.asarray(states.v)[:, 0]
    times = np.arange(len(v)) * panel.dt
    fired = np.asarray(spikes) != 0
    neuron = panel.layer.neuron if isinstance(panel.layer, snn.Refractory) else panel.layer
    fixed = np.full(len(v), float(neuron.firing.threshold))  # pyright: ignore[reportAttributeAccessIssue]
    threshold = fixed if panel.threshold is None else np.asarray(panel.threshold(states))[:, 0]

    membrane, current = figure.subplots(2, 1, sharex=True, height_ratios=(3.4, 1))
    membrane.set_title(panel.title, loc="left", fontsize=9.5, color=INK, fontweight="bold", pad=15)
    membrane.text(0, 1.02, panel.note, transform=membrane.transAxes, fontsize=7.5, color=GREY, va="bottom")
    membrane.plot(times, threshold, color=INK, linewidth=0.8, linestyle=(0, (4, 2.5)))
    membrane.plot(times, v, color=BLUE, linewidth=1.1)
    low, high = min(v.min(), threshold.min()), max(v.max(), threshold.max())
    span = high - low
    membrane.vlines(times[fired], high + 0.08 * span, high + 0.22 * span, color=VERMILLION, linewidth=1.1)
    membrane.set_ylim(low - 0.06 * span, high + 0.26 * span)
    membrane.set_ylabel("v (mV)" if units == "mV" else "v (1)", fontsize=7.5, color=INK, labelpad=1)
    current.fill_between(times, panel.current, color=GREEN, alpha=0.3, linewidth=0, step="post")
    current.plot(times, panel.current, color=GREEN, linewidth=1.0, drawstyle="steps-post")
    bottom, top = min(0.0, panel.current.min()), max(0.0, panel.current.max())
    current.set_ylim(bottom - 0.15 * (top - bottom), top + 0.15 * (top - bottom))
    current.set_yticks([float(panel.current[np.abs(panel.current).argmax()])])
    current.set_ylabel("x (mV/ms)" if units == "mV" else "x (1)", fontsize=7.5, color=INK, labelpad=1)
    current.set_xlabel("time (ms)", fontsize=7.5, color=INK, labelpad=1)
    current.set_xlim(0, times[-1])
    for axes in (membrane, current):
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(GREY)
        axes.tick_params(color=GREY, labelcolor=INK, labelsize=7, length=2.5, pad=1.5)
        axes.locator_params(axis="x", nbins=4)
    membrane.locator_params(axis="y", nbins=4)
    return int(fired.sum())


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=pathlib.Path, default=OUTPUT, help="where to write the figure")
    options = parser.parse_args(argv)

    groups = [(dimensionless(), "1"), (behaviours(), "mV")]
    panels = [(panel, units) for group, units in groups for panel in group]
    figure = Figure(figsize=(16, 9.8), dpi=100, layout="constrained")
    cells = figure.subfigures(-(-len(panels) // COLUMNS), COLUMNS, hspace=0.03, wspace=0.02)
    for cell, (panel, units) in zip(np.ravel(np.asarray(cells)), panels, strict=True):
        print(f"{panel.title}, {panel.note}: {draw(cell, panel, units)} spikes")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    text = "blue: membrane potential after reset    dashed: threshold    vermillion: spikes    green: input current"
    figure.supxlabel(text, fontsize=9, color=INK)
    figure.savefig(options.output)
    print(f"figure: {options.output}")


if __name__ == "__main__":
    main()
