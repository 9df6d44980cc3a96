"""`PadSequences`: what is padded and what is stacked, where it lies, and what the mask says."""

import doctest
import pickle
import warnings

import ml_dtypes
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from snnax_interop import JaxLoader, PadSequences, worker_options
from snnax_interop.data import padding
from snnax_interop.transfer import TransferStatistics, to_jax


def ramps(*lengths: int, width: int = 3) -> list[torch.Tensor]:
    return [torch.arange(1.0, length * width + 1).reshape(length, width) for length in lengths]


@pytest.mark.parametrize("time_major", [False, True])
@pytest.mark.parametrize(
    ("options", "total"), [({}, 7), ({"multiple": 4}, 8), ({"multiple": 7}, 7), ({"length": 9}, 9), ({"length": 7}, 7)]
)
def test_sequences_are_padded_and_the_mask_is_true_where_there_is_data(options, total, time_major):
    samples = ramps(5, 7, 0)
    padded, mask = PadSequences(**options, value=-1, time_major=time_major)(samples)
    if time_major:
        padded, mask = padded.transpose(0, 1), mask.T
    assert padded.shape == (3, total, 3)
    assert mask.dtype == torch.bool
    assert mask.tolist() == [[step < length for step in range(total)] for length in (5, 7, 0)]
    for row, real, sample in zip(padded, mask, samples, strict=True):
        assert torch.equal(row[real], sample)
        assert torch.all(row[~real] == -1)


@pytest.mark.parametrize("axis", [1, -1])
def test_time_may_be_another_axis_and_comes_first_when_asked(axis):
    samples = [torch.rand(2, length, 4) for length in (3, 5)]
    if axis == -1:
        samples = [sample.transpose(1, 2) for sample in samples]
    batch, mask = PadSequences(axis=axis)(samples)
    assert batch.shape == ((2, 2, 5, 4) if axis == 1 else (2, 2, 4, 5))
    assert torch.equal(batch[0].narrow(axis, 0, 3), samples[0])
    assert torch.all(batch[0].narrow(axis, 3, 2) == 0)
    time_major, mask_time_major = PadSequences(axis=axis, time_major=True)(samples)
    assert torch.equal(time_major, batch.movedim(axis + 1 if axis > 0 else axis, 0))
    assert torch.equal(mask_time_major, mask.T)


def test_leaves_without_axes_are_stacked_and_those_with_axes_are_sequences():
    samples = [
        {"x": np.full((length, 2), length, np.int16), "spans": torch.arange(length), "label": length, "gain": 0.5}
        | {"id": np.int64(length), "name": f"n{length}", "odd": length % 2 == 1}
        for length in (2, 3)
    ]
    batch, mask = PadSequences()(samples)
    assert batch["x"].dtype == torch.int16
    assert batch["x"].tolist() == [[[2, 2], [2, 2], [0, 0]], [[3, 3], [3, 3], [3, 3]]]
    assert batch["spans"].tolist() == [[0, 1, 0], [0, 1, 2]]
    assert batch["label"].tolist() == batch["id"].tolist() == [2, 3]
    assert (batch["gain"].dtype, batch["gain"].tolist()) == (torch.float32, [0.5, 0.5])
    assert batch["odd"].tolist() == [False, True]
    assert batch["name"] == ["n2", "n3"]
    assert mask.sum(1).tolist() == [2, 3]


def test_a_leaf_with_axes_may_be_named_as_no_sequence():
    samples = [(sample, {"target": torch.eye(10)[label]}) for label, sample in enumerate(ramps(2, 3))]
    (x, rest), _ = PadSequences(fixed=("1.target",))(samples)
    assert x.shape == (2, 3, 3)
    assert torch.equal(rest["target"], torch.eye(10)[:2])
    with pytest.raises(
        ValueError, match=r"sample 0 of the batch at '1.target': found length 10; allowed: the length 2"
    ):
        PadSequences()(samples)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "int64", "float16", "float32", "bfloat16", "float8_e5m2"])
def test_dtypes_and_values_stay(dtype):
    numpy_dtype = np.dtype(getattr(ml_dtypes, dtype, dtype))
    samples = [np.array([0, 1, 1]).astype(numpy_dtype), np.array([1]).astype(numpy_dtype)]
    batch, _ = PadSequences(value=1)(samples)
    assert str(batch.dtype) == f"torch.{dtype}"
    assert batch.to(torch.float32).tolist() == [[0, 1, 1], [1, 1, 1]]
    tensors = [torch.tensor([0, 1, 1]).to(batch.dtype), torch.tensor([1]).to(batch.dtype)]
    assert torch.equal(PadSequences(value=1)(tensors)[0].to(torch.float32), batch.to(torch.float32))


def test_infinities_and_nan_pass_unchanged_and_may_be_the_padding():
    batch, mask = PadSequences(value=float("nan"))([torch.tensor([np.nan, np.inf, 1]), torch.tensor([2.0])])
    np.testing.assert_array_equal(batch, [[np.nan, np.inf, 1], [2, np.nan, np.nan]])
    assert mask[0].all()


def test_odd_arrays_are_read_without_a_warning():
    read_only = np.arange(3)
    read_only.flags.writeable = False
    samples = [read_only, np.arange(8)[::2], np.arange(2)[::-1]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batch, _ = PadSequences()(samples)
    assert batch.tolist() == [[0, 1, 2, 0], [0, 2, 4, 6], [1, 0, 0, 0]]
    swapped, _ = PadSequences()([np.array([1.5], ">f4"), np.array([2.5, 3.5], "<f4")])
    assert (swapped.dtype, swapped.tolist()) == (torch.float32, [[1.5, 0], [2.5, 3.5]])
    gradient, _ = PadSequences()([torch.ones(2, requires_grad=True)])
    assert not gradient.requires_grad


def test_the_batch_is_shared_with_jax_and_not_copied_again():
    for time_major in (False, True):
        statistics = TransferStatistics()
        batch = PadSequences(time_major=time_major, multiple=16)([(sample, 0) for sample in ramps(5, 13)])
        to_jax(batch, copy="if_needed", statistics=statistics)
        assert statistics.reasons == {"dtype": 2 * 4}  # the labels, which are int64 in torch
        assert statistics.aliased_bytes == 2 * 16 * 3 * 4 + 2 * 16


def test_sequences_of_no_step_and_samples_of_no_width():
    batch, mask = PadSequences(multiple=8)(ramps(0, 0))
    assert (batch.shape, mask.shape) == ((2, 0, 3), (2, 0))
    batch, mask = PadSequences(length=2)(ramps(0))
    assert (batch.tolist(), mask.tolist()) == ([[[0, 0, 0], [0, 0, 0]]], [[False, False]])
    assert PadSequences(time_major=True)(ramps(3, 2, width=0))[0].shape == (3, 2, 0)


@pytest.mark.parametrize(
    ("options", "samples", "message"),
    [
        ({}, [], r"a batch of no samples; allowed: one and more"),
        (
            {"length": 4},
            ramps(2, 5),
            r"in sample 1 of the batch: found length 5; allowed: up to length=4; raise length",
        ),
        ({}, [(1, 2.0)], r"found no sequence in the samples"),
        ({"fixed": ("2",)}, [(torch.ones(2), 1)], r"fixed names \['2'\]; allowed: .* \['0', '1'\]"),
        (
            {},
            [torch.ones(2, 3), torch.ones(4, 2)],
            r"sample 1 .* shape \(4, 2\); allowed: .*\(2, 3\) of sample 0 along",
        ),
        ({}, [torch.ones(2), torch.ones(2, 1)], r"sample 1 of the batch: found shape \(2, 1\)"),
        ({}, [torch.ones(2), torch.ones(2).int()], r"sample 1 .*dtype int32; allowed: float32, the dtype in sample 0"),
        ({}, [{"x": torch.ones(2)}, {"y": torch.ones(2)}], r"in sample 1: found the structure .*'y'.*allowed: .*'x'"),
        ({}, [[1, 2], [1]], r"in sample 1: found the structure .*make every sequence one array"),
        ({}, [{"x": torch.ones(2)}, {"x": 1}], r"sample 1 of the batch at 'x': found a number; allowed: an array"),
        ({}, [{"x": torch.ones(2), "y": object()}], r"sample 0 .*at 'y': found an object of type builtins.object"),
        ({}, [{"x": np.zeros(2, "i4,f4")}], r"sample 0 .*at 'x': found dtype \[.*fields of a structured array"),
        ({}, [torch.ones(2).to_sparse()], r"sample 0 of the batch: found a tensor of torch.float32, torch.sparse_coo"),
        ({"axis": 1}, [torch.ones(2)], r"found shape \(2,\); allowed: shapes with an axis 1; name it in fixed"),
        (
            {"fixed": ("1",)},
            [(torch.ones(2), torch.ones(2)), (torch.ones(3), torch.ones(3))],
            r"only sequences may differ",
        ),
        ({"value": -1}, [torch.ones(2, dtype=torch.uint8)], r"found value=-1; allowed: what uint8 holds"),
        ({"value": 0.5}, [torch.ones(2, dtype=torch.bool)], r"found value=0.5; allowed: what bool holds"),
        ({"value": float("nan")}, [torch.ones(2).int()], r"found value=nan; allowed: what int32 holds"),
        ({"value": 1e6}, [torch.ones(2).half()], r"found value=1000000.0; allowed: what float16 holds"),
    ],
)
def test_what_makes_no_batch_is_refused(options, samples, message):
    with pytest.raises(ValueError, match=message):
        PadSequences(**options)(samples)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 4, "multiple": 2}, "length=4 and multiple=2; allowed: one of them"),
        ({"length": -1}, "length is -1; allowed: 0 and more"),
        ({"multiple": 0}, "multiple is 0; allowed: 1 and more"),
        ({"fixed": "label"}, r"fixed is 'label'; allowed: several paths, as in fixed=\('label',\)"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        PadSequences(**options)


class Ramps(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.full((index + 1, 2), float(index)), index


@pytest.mark.full
def test_workers_pad_and_name_the_sample_that_is_too_long():
    collate = PadSequences(multiple=4, time_major=True)
    assert pickle.loads(pickle.dumps(collate)) == collate
    batches = JaxLoader(DataLoader(Ramps(), batch_size=2, collate_fn=collate, **worker_options(1, timeout=60)))
    shapes = [(x.shape, y.tolist(), mask.sum(0).tolist()) for (x, y), mask in batches]
    assert shapes == [((4, 2, 2), [0, 1], [1, 2]), ((4, 2, 2), [2, 3], [3, 4]), ((8, 1, 2), [4], [5])]
    collate = PadSequences(length=3)
    batches = JaxLoader(DataLoader(Ramps(), batch_size=2, collate_fn=collate, **worker_options(1, timeout=60)))
    with pytest.raises(ValueError, match=r"(?s)in DataLoader worker.*in sample 1 of the batch at '0': found length 4"):
        list(batches)


def test_the_example_in_the_documentation_runs():
    results = doctest.testmod(padding)
    assert results.attempted == 5
    assert results.failed == 0
