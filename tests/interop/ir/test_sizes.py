"""Sizes and formulas at their edges: no step, one step, prime lengths, remainders."""

import math

import pytest

from snnax_interop.ir.formulas import StepFormula, StepTable, fit_steps
from snnax_interop.ir.sizes import Size, SizeRatio


LENGTHS = (0, 1, 2, 7, 13, 97)


@pytest.mark.parametrize("length", LENGTHS)
def test_a_size_is_the_integer_that_it_prints(length):
    for size, expected in (
        (Size(1, 0), length),
        (Size(2, -1), 2 * length - 1),
        (Size(-1, 100), 100 - length),
        (Size(1, 0, 2), length // 2),
        (Size(1, 1, 2), (length + 1) // 2),
        (Size(1, -3, 4), math.floor((length - 3) / 4)),
        (Size(0, 5), 5),
    ):
        assert size.at(3, length) == expected
        assert size(length) == expected


def test_a_size_of_a_batch_is_so_many_for_each_sample():
    assert Size(0, 1, batched=True).at(4, 7) == 4
    assert Size(1, 0, batched=True).at(4, 7) == 28
    assert Size(1, 0, batched=True).at(4, 0) == 0
    assert Size(1, 1, 2, batched=True).at(0, 7) == 0
    assert Size(1, 0, batched=True).of_sample == Size(1, 0)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (Size(0, 5), "5"),
        (Size(0, 7, 2), "3"),
        (Size(0, 1, batched=True), "B"),
        (Size(0, 3, batched=True), "3B"),
        (Size(1, 0), "T"),
        (Size(2, 0), "2T"),
        (Size(1, -1), "T-1"),
        (Size(3, 2), "3T+2"),
        (Size(1, 0, 2), "T//2"),
        (Size(1, 1, 2), "(T+1)//2"),
        (Size(3, 0, 2), "(3T)//2"),
        (Size(1, -2, 3, exact=True), "(T-2)/3"),
        (Size(1, 0, batched=True), "T*B"),
        (Size(1, 1, batched=True), "(T+1)*B"),
        (Size(1, 0, 2, batched=True), "(T//2)*B"),
    ],
)
def test_sizes_print_as_formulas_of_the_batch_and_the_length(size, text):
    assert str(size) == text


def test_only_what_depends_on_neither_is_fixed():
    assert Size(0, 5).is_fixed
    assert not Size(0, 5, batched=True).is_fixed
    assert not Size(1, 0).is_fixed


def test_an_exact_size_refuses_a_remainder():
    pairs = Size(1, -1, 2, exact=True)
    assert [pairs(length) for length in (1, 3, 97)] == [0, 1, 48]
    with pytest.raises(ValueError, match=r"where n -1 is a multiple of 2, found n = 4: .* other lengths"):
        pairs(4)
    with pytest.raises(ValueError, match=r"multiple of 2, found n = 0"):
        pairs.at(3, 0)


@pytest.mark.parametrize("size", [Size(0, 5), Size(1, 0), Size(1, -3), Size(1, 11), Size(2, 0), Size(3, 0)], ids=str)
@pytest.mark.parametrize("lengths", [(6, 9), (5, 7), (7, 13)])
def test_a_fit_finds_the_formula_again(size, lengths):
    assert Size.fit([size(length) for length in lengths], lengths) == size


def test_no_formula_is_made_up():
    assert Size.fit((3, 5), (6, 9)) is None
    assert Size.fit((6, 8), (6, 9)) is None
    assert Size.fit((3, 4), (6, 9), exact=True) == Size(1, 3, 3, exact=True)
    assert Size.fit((4, 3), (6, 9), exact=True) is None
    assert Size.affine((5, 10), (6, 9)) is None
    assert Size.affine((11, 17), (6, 9)) == Size(2, -1)
    assert Size.affine((5, 2), (6, 9)) == Size(-1, 11)


def test_a_rounded_fraction_is_found_where_only_one_explains_the_sizes():
    assert Size.rounding((3, 3), (6, 7)) == Size(1, 0, 2)
    assert Size.rounding((3, 4), (6, 7)) == Size(1, 1, 2)
    assert Size.rounding((6, 7), (6, 7)) is None


@pytest.mark.parametrize(
    "ratio",
    [SizeRatio(1.0, Size(1, 0)), SizeRatio(2.0, Size(1, -1)), SizeRatio(0.25, Size(1, 1), inverted=True)],
    ids=str,
)
def test_a_ratio_is_found_again_and_printed(ratio):
    found = SizeRatio.fit([ratio(6), ratio(9)], (6, 9))
    assert all(found.at(3, length) == pytest.approx(ratio(length), rel=1e-13) for length in (2, 13, 97))


def test_ratios_print_as_python_would_compute_them():
    assert str(SizeRatio(1.0, Size(1, 0))) == "1/T"
    assert str(SizeRatio(2.5, Size(1, -1))) == "2.5/(T-1)"
    assert str(SizeRatio(0.25, Size(1, 1), inverted=True)) == "0.25*(T+1)"


STEPS = {
    "counted": (lambda t, n: t, True),
    "counted down": (lambda t, n: n - 1 - t, True),
    "a slope": (lambda t, n: 0.5 - 0.25 * t, False),
    "one over the step": (lambda t, n: 1 / (t + 1), False),
    "a decay": (lambda t, n: 0.9**t, False),
    "a decay to the end": (lambda t, n: 0.9 ** (n - t), False),
    "a share of the length": (lambda t, n: t / n, False),
    "a share up to the last step": (lambda t, n: t / (n - 1), False),
    "a switch": (lambda t, n: 0.0 if t < 2 else 1.0, False),
    "a switch before the end": (lambda t, n: 0.0 if t < n - 1 else 1.0, False),
}


@pytest.mark.parametrize("name", STEPS)
def test_numbers_of_time_steps_are_extended_to_other_lengths(name):
    function, whole = STEPS[name]
    formula = fit_steps([[function(t, n) for t in range(n)] for n in (6, 9)])
    for n in (1, 2, 7, 13) if name != "a share up to the last step" else (2, 7, 13):
        assert formula(n).tolist() == pytest.approx([function(t, n) for t in range(n)], rel=1e-12)
    assert formula(7).dtype.kind == ("i" if whole else "f")


def test_a_formula_gives_no_numbers_for_no_steps():
    assert StepFormula("affine", False, 2, 1)(0).tolist() == []
    assert StepFormula("affine", True, 2, 1)(0).tolist() == []


def test_numbers_without_a_pattern_have_no_formula():
    assert fit_steps([[3, 1, 4, 1, 5, 9], [3, 1, 4, 1, 5, 9, 2]]) is None
    assert StepTable((3, 1, 4))(3).tolist() == [3, 1, 4]
    with pytest.raises(AssertionError):
        StepTable((3, 1, 4))(4)
