"""The page on snnTorch's functions: both of its columns run, and are equal in values and gradients, in float64.

Random encoders are compared in their distribution, and where they are not random. What the page says of snnTorch is
tested too.
"""

import pathlib
import pkgutil
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import snntorch.functional as SF
import torch
from snntorch import spikegen
from snntorch.functional import acc, loss, quant, reg


pytestmark = pytest.mark.full


PAGE = pathlib.Path(__file__).parents[3] / "docs" / "coming_from_snntorch_functions.md"
MODULES = {"SF": (loss, acc, reg), "quant": (quant,), "spikegen": (spikegen,)}
TOLERANCE = 1e-10
T, BATCH, CLASSES, FEATURES = 20, 30, 12, 8


class Row(NamedTuple):
    theirs: str
    ours: str | None  # None: no counterpart
    remark: str = ""

    @property
    def name(self) -> tuple[str, str]:
        module, name = re.match(r"(\w+)\.(\w+)", self.theirs).groups()
        return module, name

    @property
    def has_gradient(self) -> bool:
        return self.name[0] != "spikegen" and "accuracy" not in self.theirs


def rows() -> Iterator[Row]:
    for line in PAGE.read_text().splitlines():
        if not line.startswith(("| `", "| ")) or line.startswith("| snnTorch"):
            continue
        theirs, ours, remark = (cell.strip() for cell in line.strip("|").split("|"))
        assert theirs.startswith("`") and (ours.startswith("`") or (ours == "none" and remark)), line
        yield Row(theirs.strip("`"), None if ours == "none" else ours.strip("`"), remark)


ROWS = list(rows())
# Options that the page names beside its tables, or in a remark.
OPTIONS = [
    Row(
        "SF.ce_rate_loss(weight=w)(spk, targets)",
        "(w[targets] * each(losses.rate_cross_entropy)(spk, targets)).mean()",
    ),
    Row(
        "SF.ce_count_loss(weight=w)(spk, targets)",
        "(w[targets] * each(losses.count_cross_entropy)(spk, targets)).mean()",
    ),
    Row(
        "SF.ce_max_membrane_loss(weight=w)(mem, targets)",
        "(w[targets] * each(losses.max_membrane_cross_entropy)(mem, targets)).mean()",
    ),
    Row(
        "SF.ce_temporal_loss(weight=w)(spk, targets)",
        "(w[targets] * optax.softmax_cross_entropy_with_integer_labels(-first_spikes(spk), targets)).sum()"
        " / w[targets].sum()",
    ),
    Row("SF.ce_rate_loss(reduction='none')(spk, targets)", "each(losses.rate_cross_entropy)(spk, targets)"),
    Row("SF.ce_count_loss(reduction='none')(spk, targets)", "each(losses.count_cross_entropy)(spk, targets)"),
    Row(
        "SF.ce_count_loss(population_code=True, num_classes=4)(spk, targets)",
        "each(losses.count_cross_entropy)(pooled(spk, 4), targets).mean()",
    ),
    Row("SF.ce_rate_loss()(mem, targets)", "each(losses.rate_cross_entropy)(mem, targets).mean()"),
    Row(
        "SF.mse_count_loss(correct_rate=0.75, incorrect_rate=0.25)(spk, targets)",
        "each(lambda xs, label: losses.count_mse(xs, label, correct_rate=0.75, incorrect_rate=0.25))"
        "(spk, targets).mean()",
    ),
    Row(
        "SF.mse_membrane_loss(on_target=1.5, off_target=0.25)(mem, targets)",
        "each(losses.membrane_mse)(mem, 0.25 + 1.25 * jax.nn.one_hot(targets, 12)).mean()",
    ),
    Row(
        "SF.mse_membrane_loss(time_var_targets=True)(mem, targets[:20])",
        "jax.vmap(losses.membrane_mse, (1, None))(mem, jax.nn.one_hot(targets[:20], 12)).mean()",
    ),
    Row(
        "SF.mse_temporal_loss(target_is_time=True, tolerance=3)(spk, times)",
        "jnp.mean(jnp.where(abs(first_spikes(spk) - times) < 3, 0, (first_spikes(spk) - times) / 20) ** 2)",
    ),
    Row(
        "SF.ce_temporal_loss(inverse='reciprocal')(spk, targets)",
        "optax.softmax_cross_entropy_with_integer_labels(1 / (first_spikes(spk) + 1), targets).mean()",
    ),
    Row(
        "SF.accuracy_rate(spk, targets, population_code=True, num_classes=4)",
        "metrics.accuracy_rate(jnp.moveaxis(pooled(spk, 4), 1, 0), targets)",
    ),
    Row("quant.state_quant()(mem)", "nearest(mem, jnp.linspace(-1, 1.2, 2**8))"),
    Row(
        "quant.state_quant(num_bits=3, threshold=0.5, lower_limit=0.1, upper_limit=0.4)(mem)",
        "nearest(mem, jnp.linspace(-0.55, 0.7, 2**3))",
    ),
    Row(
        "spikegen.latency(data, 50, normalize=True, linear=True)",
        "encoding.latency(data, 50, code='linear', otherwise='last')",
    ),
    Row(
        "spikegen.latency(data, 100, normalize=True, linear=True, clip=True)",
        "encoding.latency(data, 100, code='linear')",
    ),
    Row(
        "spikegen.latency(data, 20, tau=5, clip=True, bypass=True, on_target=1.5, off_target=0.25)",
        "jnp.maximum(1.5 * encoding.latency(data, 20, tau=5.0), 0.25)",
    ),
    Row(
        "spikegen.latency(data, 20, tau=5, clip=True, bypass=True, first_spike_time=4)",
        "jnp.concatenate([jnp.zeros((4, *data.shape)), encoding.latency(data, 16, tau=5.0)])",
    ),
    Row(
        "spikegen.latency(data, 20, normalize=True, linear=True, first_spike_time=4)",
        "jnp.concatenate([jnp.zeros((4, *data.shape)), encoding.latency(data, 16, code='linear', otherwise='last')])",
    ),
    Row("spikegen.latency_code(data, tau=5)[1]", "data < 0.01"),
    Row(
        "spikegen.delta(series, threshold=0.2, off_spike=True, padding=True)",
        "encoding.delta(series, 0.2, off_spikes=True, start='first')",
    ),
]
PAIRS = {row.theirs: row for row in [*ROWS, *OPTIONS] if row.ours is not None}
RANDOM = [text for text, row in PAIRS.items() if "key=key" in row.ours]
EQUAL = [text for text in PAIRS if text not in RANDOM]
WITH_GRADIENT = [text for text in EQUAL if PAIRS[text].has_gradient]
# What remarks give instead of, or beside, the expression of the row.
REMARKED = [
    span
    for row in ROWS
    for span in re.findall(r"`([^`]+)`", row.remark)
    if re.match(r"(each|pooled|encoding\.\w+|jnp\.argmax)\(", span)
]


@pytest.fixture(autouse=True)
def float64(double_precision, monkeypatch):
    """snnTorch adds losses up and makes targets and spikes in a dtype of its own, whatever that of the outputs."""
    monkeypatch.setattr(loss, "dtype", torch.float64)
    monkeypatch.setattr(spikegen, "dtype", torch.float64)
    torch.manual_seed(0)


def arrays() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    targets = random.integers(0, 4, BATCH)
    # Outputs that are often right, so that accuracies are neither 0 nor 1 with or without pooling.
    rate = 0.2 + 0.03 * (np.arange(CLASSES) // 3 == targets[:, None]) + 0.2 * np.eye(CLASSES)[targets]
    spk = (random.uniform(size=(T, BATCH, CLASSES)) < rate).astype(float)
    spk[:, :3, :5] = 0
    spk[:, 0, targets[0]] = np.arange(T) == T - 1
    data = random.uniform(size=(BATCH, FEATURES))
    data[0], data[1] = 0, 1
    data[2] *= 0.05
    found = {
        "spk": spk,
        "mem": random.normal(size=(T, BATCH, CLASSES)),
        "targets": targets,
        "one_hot": np.eye(CLASSES)[targets],
        "times": random.uniform(0, T, (BATCH, CLASSES)),
        "w": random.uniform(0.5, 2, CLASSES),
        "levels": np.array([-1.0, -0.25, 0.5, 1.5]),
        "data": data,
        "series": random.uniform(size=(T, BATCH, FEATURES)),
    }
    assert targets[0] > 0 and np.any(~spk.any(0)) and (data < 0.01).any() and (data >= 0.01).any()
    return found


def definitions() -> dict[str, Any]:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(block, str(PAGE), "exec"), names)
    return {**names, "key": jax.random.key(0)}


def of_snntorch(code: str, values: dict[str, Any]) -> Any:
    tensors = {name: value if torch.is_tensor(value) else torch.tensor(value) for name, value in values.items()}
    return eval(code, {"SF": SF, "spikegen": spikegen, "quant": quant, "torch": torch, **tensors})


def of_snnax(code: str, values: dict[str, Any]) -> Any:
    return eval(code, {**definitions(), **{name: jnp.asarray(value) for name, value in values.items()}})


def test_there_is_a_row_for_every_name_of_snntorch():
    for module, parts in MODULES.items():
        public = {
            name
            for part in parts
            for name, value in vars(part).items()
            if not name.startswith("_") and getattr(value, "__module__", None) == part.__name__
        }
        assert public == {row.name[1] for row in ROWS if row.name[0] == module}
    # The last two are named below the tables.
    assert {part.name for part in pkgutil.iter_modules(SF.__path__)} == {
        *("loss", "acc", "reg", "quant"),
        *("probe", "stdp_learner"),
    }
    assert len(EQUAL) > 40 and len(RANDOM) == 4 and len(REMARKED) > 4


@pytest.mark.filterwarnings("ignore:Using a target size:UserWarning")
@pytest.mark.parametrize("text", EQUAL)
def test_both_columns_have_equal_values(text):
    row, values = PAIRS[text], arrays()
    expected = np.squeeze(np.asarray(of_snntorch(row.theirs, values)))
    found = np.asarray(of_snnax(row.ours, values))
    assert expected.shape == found.shape
    # Accuracies are float32 always.
    tolerance = 1e-6 if "accuracy" in text else TOLERANCE
    assert (found.dtype == np.float32) == ("accuracy" in text)
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
    if found.ndim == 0:
        assert found > 0 and (found < 1 or "accuracy" not in text)
    else:
        assert len(np.unique(found)) > 1


@pytest.mark.filterwarnings("ignore:Using a target size:UserWarning")
@pytest.mark.parametrize("text", WITH_GRADIENT)
def test_both_columns_have_equal_gradients(text):
    row, values = PAIRS[text], arrays()
    (name,) = {"spk", "mem"} & set(re.findall(r"\w+", row.theirs))
    inputs = torch.tensor(values[name], requires_grad=True)
    outputs = of_snntorch(row.theirs, {**values, name: inputs})
    weights = np.random.default_rng(1).uniform(0.5, 1.5, outputs.shape)
    (outputs * torch.tensor(weights)).sum().backward()

    def weighted(xs):
        return (of_snnax(row.ours, {**values, name: xs}) * np.squeeze(weights)).sum()

    gradient = jax.grad(weighted)(jnp.asarray(values[name]))
    expected = inputs.grad.numpy()
    assert np.count_nonzero(expected) >= BATCH
    np.testing.assert_allclose(gradient, expected, rtol=TOLERANCE, atol=TOLERANCE * abs(expected).max())


@pytest.mark.parametrize("code", REMARKED)
def test_the_expressions_of_the_remarks_run(code):
    assert jnp.all(jnp.isfinite(of_snnax(code, arrays())))


@pytest.mark.parametrize("text", RANDOM)
def test_random_spikes_have_the_distribution_of_snntorch(text):
    row, probability = PAIRS[text], np.array([0.1, 0.5, 0.9])
    values = {"data": np.tile(probability, (1000, 1)), "series": np.tile(probability, (1000, 1, 1))}
    expected, found = (
        np.asarray(run(re.sub(r"\b20\b", "1000", code), values))
        for run, code in [(of_snntorch, row.theirs), (of_snnax, row.ours)]
    )
    assert expected.shape == found.shape and np.array_equal(np.unique(found), [0, 1])
    probability = probability if "rate=0.3" not in text else 0.3
    draws = found.size / np.size(probability)
    # Five standard deviations of a mean of independent draws.
    tolerance = 5 * np.sqrt(probability * (1 - np.asarray(probability)) / draws)
    for spikes in (expected, found):
        assert np.all(abs(spikes.reshape(-1, np.size(probability)).mean(0) - probability) < tolerance)


@pytest.mark.parametrize("probability", [0.0, 1.0])
@pytest.mark.parametrize("text", RANDOM)
def test_random_spikes_are_equal_where_they_are_certain(text, probability):
    row, values = PAIRS[text], {name: np.full_like(arrays()[name], probability) for name in ("data", "series")}
    expected, found = (
        np.asarray(run(code.replace("0.3", str(probability)), values))
        for run, code in [(of_snntorch, row.theirs), (of_snnax, row.ours)]
    )
    assert found.size >= T
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found, probability)


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        ("SF.ce_rate_loss(population_code=True, num_classes=4)(spk, targets)", TypeError, "not subscriptable"),
        ("SF.mse_count_loss(weight=w)(spk, targets)", RuntimeError, "must match the size"),
        ("SF.mse_membrane_loss(weight=w)(mem, targets)", RuntimeError, "must match the size"),
        ("SF.mse_temporal_loss(weight=w)(spk, targets)", RuntimeError, "must match the size"),
        ("SF.mse_membrane_loss(time_var_targets=True)(mem, mem)", RuntimeError, "same number of dimensions"),
        ("spikegen.targets_rate(targets, 12, num_steps=20, correct_rate=0.5)", RuntimeError, "must match the size"),
        ("spikegen.targets_rate(targets, 12, 20, 0, 0.9, 0.1)", RuntimeError, "must match the size"),
        ("spikegen.to_one_hot(targets, 2)", Exception, "out of bounds"),
    ],
)
def test_snntorch_raises_where_the_page_says_so(code, error, message):
    with pytest.raises(error, match=message):
        of_snntorch(code, arrays())


def test_snntorch_rounds_a_regular_train_beyond_its_end_in_float32():
    torch.set_default_dtype(torch.float32)
    with pytest.raises(RuntimeError, match="index 200 is out of bounds"):
        spikegen.target_rate_code(200, rate=0.07)


# Two neurons that spike in the steps 0 and 1, and in 1 and 2, of four.
TWO = "torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 0.0]])[:, None]"


def mixed_up() -> float:
    """The squared distances of counts, weighted along the axis of the classes by the labels of the samples."""
    values = arrays()
    spk, label = values["spk"][:, :CLASSES], values["targets"][:CLASSES]
    squares = (spk.sum(0) - T * np.eye(CLASSES)[label]) ** 2
    return float(np.mean(squares * values["w"][label]) / T)


def test_snntorch_overwrites_negative_target_times():
    values = {**arrays(), "times": torch.full((BATCH, CLASSES), -1.0)}
    of_snntorch("SF.mse_temporal_loss(target_is_time=True)(spk, times)", values)
    assert values["times"].unique().tolist() == [T - 1]


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("SF.ce_rate_loss()(spk, targets).shape", (1,)),
        ("SF.mse_membrane_loss()(mem, targets).shape", (1,)),
        ("SF.mse_count_loss(reduction='none')(spk, targets).shape", (BATCH, CLASSES)),
        # Of as many samples as classes.
        ("SF.mse_count_loss(weight=w)(spk[:, :12], targets[:12]).item()", pytest.approx(mixed_up())),
        ("SF.SpikeTime()(spk, targets)[1].unique().tolist()", [0]),
        ("SF.SpikeTime(off_target=19)(spk, targets)[1].unique().tolist()", [0, 19]),
        (f"SF.SpikeTime(True, multi_spike=True)({TWO}, torch.zeros(2, 1, 2))[0][1].tolist()", [[3, 2]]),
        (f"SF.SpikeTime(True, multi_spike=True)({TWO}[..., :1], torch.zeros(2, 1, 1))[0][1].tolist()", [[1]]),
        ("SF.accuracy_rate(0 * spk, 0 * targets)", 1),
        ("SF.accuracy_temporal(0 * spk, 0 * targets)", 1),
        ("torch.func.grad(SF.ce_max_membrane_loss())(0 * mem, targets)[1:].any().item()", False),
        ("spikegen.targets_convert(targets, 12, on_target=1, off_target=-1).min().item()", 0),
        ("spikegen.targets_rate(targets, 20, num_steps=20, correct_rate=0.5).ndim", 5),
        ("spikegen.latency(0 * data, 100, normalize=True, linear=True).argmax(0).unique().tolist()", [98]),
        ("spikegen.rate(series, time_var_input=True, gain=0, first_spike_time=2).shape[0]", T + 2),
        ("bool(spikegen.rate(series, time_var_input=True, gain=0).any())", True),
        ("bool(spikegen.rate(1 + data, 20, first_spike_time=2)[:2].any())", False),
        ("spikegen.from_one_hot(one_hot).tolist()", list(range(BATCH))),
    ],
)
def test_snntorch_does_what_the_page_says(code, value):
    assert of_snntorch(code, arrays()) == value
