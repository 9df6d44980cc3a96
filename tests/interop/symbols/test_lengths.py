"""What holds at other lengths: formulas that were confirmed, or exactly the example's length."""

import math

import pytest
import snntorch
import torch
from helpers.compare import assert_same
from helpers.conversion import without_comparison
from torch import nn

from snnax_interop import from_torch, to_jax
from snnax_interop.ir.formulas import fit_steps
from snnax_interop.ir.sizes import Size, SizeRatio


pytestmark = pytest.mark.full


@pytest.fixture(autouse=True)
def compared_here():
    """The comparisons of this file are on more lengths than those of the conversion."""
    with without_comparison():
        yield


class Net(nn.Module):
    """Records its spikes over `steps`, and returns what `finish` makes of them."""

    def __init__(
        self, finish=torch.stack, steps=lambda length: range(length), change=lambda x: x, each=lambda x, t: x[t]
    ):
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.lif = snntorch.Leaky(beta=0.9, threshold=0.5)
        self.finish, self.steps, self.change, self.each = finish, steps, change, each

    def forward(self, x):
        x, mem, record = self.change(x), self.lif.reset_mem(), []
        for t in self.steps(x.shape[0]):
            spk, mem = self.lif(self.fc(self.each(x, t)), mem)
            record.append(spk)
        return self.finish(record)


def network(*args, **kwargs) -> nn.Module:
    torch.manual_seed(0)
    return Net(*args, **kwargs)


def sequence(length: int, batch: int = 3) -> torch.Tensor:
    return torch.rand((length, batch, 5), generator=torch.Generator().manual_seed(3)) * 4


ANY = {
    "strided list": {"finish": lambda record: torch.stack(record[::2])},
    "list backwards": {"finish": lambda record: torch.stack(record + record[::-1])},
    "pairs": {"finish": lambda record: torch.stack([a - b for a, b in zip(record[1:], record[:-1], strict=True)])},
    "sum of a list": {"finish": lambda record: sum(record) / len(record)},
    "every other step": {"steps": lambda length: range(0, length, 2)},
    "backwards": {"steps": lambda length: reversed(range(length))},
    "a mean by hand": {"change": lambda x: x * torch.tensor(8.0 / x.shape[0])},
    "constants of a step": {
        "each": lambda x, t: x[t] * torch.arange(len(x)).float().mean() * torch.tensor(1 / len(x)) + torch.eye(5)[t % 1]
    },
    "shorter input": {"change": lambda x: x[1:]},
    "differences": {"change": lambda x: (x[1:] - x[:-1]) * 3},
    "weights": {
        "finish": lambda record: torch.einsum(
            "t,tbn->bn", torch.exp(-torch.arange(len(record)).float() / 3), torch.stack(record)
        )
    },
}


@pytest.mark.full
@pytest.mark.parametrize("example", [6, 5])
@pytest.mark.parametrize("name", ANY)
def test_what_follows_from_the_length_holds_at_any(name, example):
    module = network(**ANY[name])
    converted = from_torch(module, (sequence(example),))
    for length in (6, 7, 9):
        assert_same(module, converted, (sequence(length, batch=2),))


ONE = {
    "a limit": ({"steps": lambda length: range(min(8, length))}, 5),
    "a longer limit": ({"change": lambda x: x * 2 if len(x) > 10 else x}, 5),
    "even lengths": ({"change": lambda x: x * 2 if len(x) % 2 == 0 else x}, 6),
    "even lengths, from an odd one": ({"change": lambda x: x * 2 if len(x) % 2 == 0 else x}, 5),
    "multiples of four, from an odd one": ({"change": lambda x: x if len(x) % 4 else x * 2}, 7),
    "the largest even number": ({"finish": lambda record: torch.stack(record).sum(0) * (len(record) // 2 * 2)}, 5),
    "whole pairs of steps": ({"finish": lambda record: torch.stack(record[: len(record) // 2 * 2])}, 5),
    "half of it": ({"finish": lambda record: torch.stack(record).sum(0) * (len(record) // 2)}, 6),
    "a fraction to skip": ({"finish": lambda record: torch.stack(record)[int(0.2 * len(record)) :].mean(0)}, 7),
    "a logarithm": ({"finish": lambda record: torch.stack(record) * int(math.log2(len(record)))}, 6),
    # What two lengths would explain.
    "a number of this length": ({"change": lambda x: x * (1.0 if len(x) == 6 else 2.0)}, 6),
    "a number of this length, of many steps": ({"change": lambda x: x * (1.0 if len(x) == 12 else 2.0)}, 12),
    "a share of this length": (
        {"finish": lambda record: sum(record) * (0.5 if len(record) == 6 else 1 / len(record))},
        5,
    ),
    "a step of this length": ({"finish": lambda record: record[2 if len(record) == 6 else -1]}, 6),
    "a start of this length": ({"change": lambda x: x[2:] if len(x) == 7 else x}, 7),
    "the last ten": ({"finish": lambda record: torch.stack(record[-10:])}, 5),
}


@pytest.mark.full
@pytest.mark.parametrize("name", ONE)
def test_what_does_not_is_fixed_to_the_length_of_the_example(name):
    options, length = ONE[name]
    module = network(**options)
    converted = from_torch(module, (sequence(length),))
    assert any("exactly this length" in note for note in converted.report.notes)
    assert_same(module, converted, (sequence(length, batch=2),))
    for other in (length - 1, length + 1, 2 * length + 1):
        with pytest.raises(ValueError, match="must have shape"):
            converted(to_jax(sequence(other)))


@pytest.mark.full
@pytest.mark.parametrize(
    ("period", "example", "others", "wrong", "multiple"),
    [
        (2, 6, (8, 12), 7, r"n \+0 is a multiple of 2"),
        (2, 7, (5, 11), 8, "n -1 is a multiple of 2"),
        (3, 9, (6, 12), 10, r"n \+0 is a multiple of 3"),
        (3, 8, (11, 14), 9, "n -2 is a multiple of 3"),
    ],
)
def test_steps_in_groups_hold_at_lengths_that_leave_as_many_over(period, example, others, wrong, multiple):
    class Groups(Net):
        def forward(self, x):
            mem, record = self.lif.reset_mem(), []
            for t in range(x.shape[0]):
                spk, mem = self.lif(self.fc(x[t]), mem)
                mem = mem.detach() if t % period == period - 1 else mem
                record.append(spk)
            return torch.stack(record)

    torch.manual_seed(0)
    module = Groups()
    converted = from_torch(module, (sequence(example),))
    for length in (example, *others):
        assert_same(module, converted, (sequence(length),))
    with pytest.raises(ValueError, match=rf"{multiple}, found n = {wrong}"):
        converted(to_jax(sequence(wrong)))


NUMBERS = {
    "powers from the end": lambda t, n: 0.9 ** (n - t),
    "powers": lambda t, n: 0.9**t,
    "exponential": lambda t, n: 2 * math.exp(-t / 5),
    "reciprocal": lambda t, n: 1 / (t + 1),
    "share": lambda t, n: (t + 1) / n,
    "share to the last": lambda t, n: t / (n - 1),
    "rest": lambda t, n: 1 - t / n,
    "counting": lambda t, n: t,
    "counting down": lambda t, n: n - t,
    "affine": lambda t, n: 0.1 * t + 2,
    "switch": lambda t, n: float(t >= 3),
    "switch near the end": lambda t, n: t < n - 2,
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_per_step_become_a_formula_that_holds_at_any_length(name):
    rule = NUMBERS[name]
    formula = fit_steps([[rule(t, n) for t in range(n)] for n in (6, 13)])
    assert formula is not None
    for n in (6, 7, 20, 50):
        expected = [rule(t, n) for t in range(n)]
        assert formula(n).tolist() == pytest.approx(expected, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("rule", [lambda t, n: math.sin(t), lambda t, n: t * t, lambda t, n: float(t == n // 2)])
def test_numbers_without_a_rule_have_no_formula(rule):
    assert fit_steps([[rule(t, n) for t in range(n)] for n in (6, 13)]) is None


def test_integers_of_a_length():
    assert Size.fit((6, 13), (6, 13)) == Size(1, 0)
    assert Size.fit((5, 12), (6, 13)) == Size(1, -1)
    assert Size.fit((12, 26), (6, 13)) == Size(2, 0)
    assert Size.fit((4, 4), (6, 13)) == Size(0, 4)
    assert Size.fit((3, 6), (6, 13)) is None
    assert Size.rounding((3, 7), (6, 13)) == Size(1, 1, 2)
    assert Size.fit((3, 7), (6, 14), exact=True) == Size(1, 0, 2, exact=True)


def test_fractions_of_a_length():
    assert SizeRatio.fit((1 / 6, 1 / 13), (6, 13)) == SizeRatio(1.0, Size(1, 0))
    assert SizeRatio.fit((1 / 5, 1 / 12), (6, 13)) == SizeRatio(1.0, Size(1, -1))
    assert SizeRatio.fit((0.6, 1.3), (6, 13))(20) == pytest.approx(2.0)
    assert SizeRatio.fit((0.5, 0.9), (6, 13)) is None
