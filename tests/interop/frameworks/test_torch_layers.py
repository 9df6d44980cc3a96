"""Every layer of torch.nn that is taken whole, in a network with neurons behind it, with options off their defaults."""

import inspect
from collections.abc import Callable, Hashable
from typing import Any

import pytest
import snntorch
import torch
from helpers.compare import assert_same
from helpers.conversion import without_comparison
from helpers.side_by_side import SideBySide, by_group, groups
from torch import nn
from torch.utils import _pytree as pytree

from snnax_interop import UnsupportedModuleError, UnsupportedOptionError, from_torch
from snnax_interop.frameworks.pytorch import LAYERS


pytestmark = pytest.mark.full


BATCH, STEPS = 2, 5
INTEGERS = (nn.Embedding, nn.EmbeddingBag)  # layers that take them
VECTOR, SIGNAL, IMAGE, VOLUME = (6,), (4, 9), (4, 6, 8), (4, 5, 4, 6)
SPACE = {1: SIGNAL, 2: IMAGE, 3: VOLUME}

# Class, constructor arguments and options, shape of one sample.
ROWS: list[tuple[type, tuple[Any, ...], dict[str, Any], tuple[int, ...]]] = [
    (nn.Linear, (6, 5), {}, VECTOR),
    (nn.Linear, (9, 5), {"bias": False}, SIGNAL),
    (nn.Embedding, (7, 5), {"padding_idx": 2}, (3,)),
    (nn.SyncBatchNorm, (4,), {"eps": 1e-3}, IMAGE),
    (nn.LayerNorm, ([6, 8],), {"eps": 1e-3}, IMAGE),
    (nn.LayerNorm, (6,), {"bias": False}, VECTOR),
    (nn.LayerNorm, (6,), {"elementwise_affine": False}, VECTOR),
    (nn.GroupNorm, (2, 4), {"eps": 1e-3}, IMAGE),
    (nn.GroupNorm, (3, 6), {"affine": False}, VECTOR),
    (nn.Dropout, (0.5,), {}, VECTOR),
    (nn.AlphaDropout, (0.5,), {}, VECTOR),
    (nn.Identity, (), {}, VECTOR),
    (nn.Flatten, (), {}, IMAGE),
    (nn.Flatten, (2,), {}, IMAGE),
    (nn.Unflatten, (1, (2, 3)), {}, VECTOR),
    (nn.Upsample, ((9, 5),), {"mode": "bilinear"}, IMAGE),
    (nn.Upsample, (), {"scale_factor": 2.0}, IMAGE),
    (nn.PixelShuffle, (2,), {}, IMAGE),
    (nn.PixelUnshuffle, (2,), {}, IMAGE),
    (nn.PReLU, (4,), {}, IMAGE),
    (nn.PReLU, (), {"init": 0.4}, VECTOR),
    (nn.Softmax, (), {"dim": 1}, IMAGE),
    (nn.Softmin, (), {"dim": -1}, IMAGE),
    (nn.LogSoftmax, (), {"dim": 1}, VECTOR),
    (nn.GLU, (), {"dim": 1}, VECTOR),
    (nn.LeakyReLU, (0.3,), {}, VECTOR),
    (nn.ELU, (0.7,), {}, VECTOR),
    (nn.CELU, (0.7,), {}, VECTOR),
    (nn.GELU, (), {"approximate": "tanh"}, VECTOR),
    (nn.Softplus, (2.0, 1.0), {}, VECTOR),
    (nn.Softshrink, (0.2,), {}, VECTOR),
    (nn.Hardshrink, (0.2,), {}, VECTOR),
    (nn.Hardtanh, (-0.5, 0.8), {}, VECTOR),
    (nn.Threshold, (0.1, 0.3), {}, VECTOR),
    *((kind, (), {}, VECTOR) for kind in (nn.ReLU, nn.ReLU6, nn.SELU, nn.SiLU, nn.Mish, nn.Hardswish)),
    *((kind, (), {}, VECTOR) for kind in (nn.Hardsigmoid, nn.Softsign, nn.Tanhshrink, nn.Sigmoid, nn.LogSigmoid)),
    (nn.Tanh, (), {}, VECTOR),
    (nn.EmbeddingBag, (7, 5), {"mode": "mean", "padding_idx": 2}, (3,)),
    (nn.RMSNorm, (6,), {}, VECTOR),
    (nn.RMSNorm, ([6, 8],), {"eps": 1e-3, "elementwise_affine": False}, IMAGE),
    (nn.LocalResponseNorm, (2,), {"alpha": 0.1, "k": 2.0}, IMAGE),
    (nn.FeatureAlphaDropout, (0.5,), {}, VECTOR),
    (nn.RReLU, (0.1, 0.3), {}, VECTOR),
    (nn.Softmax2d, (), {}, IMAGE),
    (nn.Upsample, ((9, 5),), {"mode": "bicubic"}, IMAGE),
    (nn.UpsamplingNearest2d, ((9, 5),), {}, IMAGE),
    (nn.UpsamplingBilinear2d, (), {"scale_factor": 2}, IMAGE),
    (nn.ChannelShuffle, (2,), {}, IMAGE),
    (nn.Unfold, (2,), {"padding": 1, "stride": 2}, IMAGE),
    (nn.Fold, ((4, 4), 2), {}, SIGNAL),
]
for n, shape in SPACE.items():

    def kind(name: str, n: int = n) -> type:
        return getattr(nn, f"{name}{n}d")

    ROWS += [
        (kind("Conv"), (4, 6, 3), {"stride": 2, "padding": 1, "groups": 2}, shape),
        (kind("Conv"), (4, 3, 2), {"padding": "same", "dilation": 2, "bias": False}, shape),
        *((kind("Conv"), (4, 3, 3), {"padding": 1, "padding_mode": mode}, shape) for mode in ("circular", "reflect")),
        (kind("Conv"), (4, 3, 3), {"padding": "same", "padding_mode": "replicate"}, shape),
        (kind("ConvTranspose"), (4, 6, 3), {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2}, shape),
        (kind("MaxPool"), (3, 2, 1), {"ceil_mode": True}, shape),
        (kind("AvgPool"), (3, 2, 1), {"count_include_pad": False}, shape),
        (kind("AdaptiveAvgPool"), (2,), {}, shape),
        (kind("AdaptiveMaxPool"), (2,), {}, shape),
        (kind("LPPool"), (2, 2), {"stride": 1}, shape),
        (kind("BatchNorm"), (4,), {"eps": 1e-3}, shape),
        (kind("InstanceNorm"), (4,), {"eps": 1e-3}, shape),
        (kind("InstanceNorm"), (4,), {"affine": True, "track_running_stats": True}, shape),
        (kind("Dropout"), (0.5,), {}, shape),
        (kind("ZeroPad"), (1,), {}, shape),
        (kind("ConstantPad"), ((2, -1, *(0, 1) * (n - 1)), 0.7), {}, shape),
        *((kind(f"{name}Pad"), ((2, 1) * n,), {}, shape) for name in ("Reflection", "Replication", "Circular")),
    ]


SEQUENCE = (6, 4)  # places in the sequence, features


def _call(*names: str, **options: Any) -> Callable[..., Any]:
    """Calls a layer on several inputs of which all are made of one: itself, scaled, or reversed in its features."""
    makers = {
        "x": lambda x: x,
        "y": lambda x: torch.tanh(x) * 0.7,
        "padding": lambda x: (x[..., 0] > 0.5) & (torch.arange(x.shape[1]) > 0),
        "causal": lambda x: torch.triu(torch.ones(x.shape[1], x.shape[1]), 1).bool(),
    }

    def call(layer, x):
        given = {key: makers[value](x) if isinstance(value, str) else value for key, value in options.items()}
        return layer(*(makers[name](x) for name in names), **given)

    return call


def _started(*shapes: tuple[int, ...]) -> Callable[..., Any]:
    """Calls a recurrent layer with a state that comes from the input; for layers without `batch_first` too."""

    def call(layer, x):
        own = torch.sin(x.mean((1, 2)))[None, :, None]
        states = [own.expand(number, x.shape[0], size) * 0.5 for number, size in shapes]
        first = getattr(layer, "batch_first", True)
        out, *state = layer(x if first else x.transpose(0, 1), tuple(states) if len(states) > 1 else states[0])
        return out if first else out.transpose(0, 1), *state

    return call


def _places_first(layer, x):
    """Attention without `batch_first`, with other features in keys and values."""
    out, weights = layer(*(each.transpose(0, 1) for each in (x, torch.sin(x), torch.cat([x, x[..., :2]], -1))))
    return out.transpose(0, 1), weights


# Class, constructor arguments and options, shape of one sample, and how it is called on a batch.
SEVERAL: list[tuple[type, tuple[Any, ...], dict[str, Any], tuple[int, ...], Callable[..., Any]]] = [
    (nn.Bilinear, (6, 6, 5), {}, VECTOR, _call("x", "y")),
    (nn.Bilinear, (6, 6, 5), {"bias": False}, VECTOR, _call(input2="x", input1="y")),
    (nn.CosineSimilarity, (), {"dim": 1}, SEQUENCE, _call("x", "y")),
    (nn.PairwiseDistance, (), {"p": 3.0, "keepdim": True}, SEQUENCE, _call("x", "y")),
    (nn.EmbeddingBag, (7, 5), {"mode": "sum"}, (3,), lambda layer, x: layer(x, per_sample_weights=x / 7.0)),
    *((nn.RNNCell, (6, 5), {"nonlinearity": name}, VECTOR, _call("x")) for name in ("tanh", "relu")),
    (nn.RNNCell, (6, 6), {"bias": False}, VECTOR, _call("x", "y")),
    (nn.GRUCell, (6, 5), {}, VECTOR, _call("x")),
    (nn.GRUCell, (6, 6), {"bias": False}, VECTOR, _call("x", hx="y")),
    (nn.LSTMCell, (6, 5), {}, VECTOR, _call("x")),
    (nn.LSTMCell, (6, 6), {"bias": False}, VECTOR, lambda layer, x: layer(x, (torch.tanh(x), x))),
    (nn.RNN, (4, 3), {"nonlinearity": "relu", "batch_first": True}, SEQUENCE, _call("x")),
    (nn.RNN, (4, 3), {"bidirectional": True, "bias": False}, SEQUENCE, _started((2, 3))),
    (nn.GRU, (4, 3), {"num_layers": 2, "dropout": 0.2, "batch_first": True}, SEQUENCE, _call("x")),
    (nn.GRU, (4, 3), {"bidirectional": True}, SEQUENCE, _started((2, 3))),
    (nn.LSTM, (4, 3), {"num_layers": 2, "bidirectional": True, "batch_first": True}, SEQUENCE, _call("x")),
    (nn.LSTM, (4, 3), {"proj_size": 2, "batch_first": True}, SEQUENCE, _started((1, 2), (1, 3))),
    (nn.LSTM, (4, 3), {"bias": False, "proj_size": 2}, SEQUENCE, _started((1, 2), (1, 3))),
    (nn.MultiheadAttention, (4, 2), {"batch_first": True}, SEQUENCE, _call("x", "y", "x")),
    (nn.MultiheadAttention, (4, 2), {"batch_first": True, "bias": False, "dropout": 0.2}, SEQUENCE,
     _call("x", "x", "x", need_weights=False, attn_mask="causal", is_causal=True)),
    (nn.MultiheadAttention, (4, 2), {"batch_first": True, "add_bias_kv": True, "add_zero_attn": True}, SEQUENCE,
     _call("x", "y", "y", key_padding_mask="padding", average_attn_weights=False)),
    (nn.MultiheadAttention, (4, 2), {"kdim": 4, "vdim": 6}, SEQUENCE, _places_first),
]  # fmt: skip


class Network(nn.Module):
    """A layer at every time step, with neurons behind all that it returns."""

    def __init__(self, layer: nn.Module, call: Callable[..., Any] = lambda layer, x: layer(x)):
        super().__init__()
        self.layer = layer
        self.call = call
        self.negative = "Log" in type(layer).__name__  # the current that wakes the neurons is positive
        self.lif = snntorch.Leaky(beta=0.8, threshold=0.3)

    def current(self, x):
        """The results of the layer, each with the batch in front, as one."""
        result = self.call(self.layer, x)
        if isinstance(result, torch.Tensor):
            return result
        out, *others = (each for each in pytree.tree_leaves(result) if each is not None)
        states = isinstance(self.layer, nn.RNNBase)  # with the layers in front
        fronts = [out, *(each.transpose(0, 1) if states else each for each in others)]
        return torch.cat([each.flatten(1) for each in fronts], 1)

    in_steps = True

    def start(self, x):
        return self.lif.init_leaky()

    def step(self, x, mem):
        current = self.current(x)
        spike, mem = self.lif(-current if self.negative else current, mem)
        return (spike, mem), mem

    def finish(self, outs, mem):
        return outs

    def forward(self, x):
        mem = self.lif.init_leaky()
        spikes, mems = [], []
        for step in range(x.shape[1]):
            current = self.current(x[:, step])
            spike, mem = self.lif(-current if self.negative else current, mem)
            spikes.append(spike)
            mems.append(mem)
        return torch.stack(spikes), torch.stack(mems)


class Sequences(Network):
    """A recurrent layer over all time steps, with neurons behind and another layer behind those."""

    def __init__(self, layer: nn.Module):
        super().__init__(layer)
        self.behind = nn.GRU(layer.proj_size or layer.hidden_size, 2)

    def forward(self, x):
        outs = self.layer(x.transpose(0, 1))[0]
        mem = self.lif.init_leaky()
        spikes = []
        for step in range(x.shape[1]):
            spike, mem = self.lif(outs[step] * 3, mem)
            spikes.append(spike)
        return self.behind(torch.stack(spikes))


class Carried(Network):
    """A cell whose state is handed from step to step by hand."""

    def forward(self, x):
        zeros = torch.zeros(x.shape[0], self.layer.hidden_size)
        state = (zeros, zeros) if isinstance(self.layer, nn.LSTMCell) else zeros
        mem = self.lif.init_leaky()
        spikes = []
        for step in range(x.shape[1]):
            state = self.layer(x[:, step], state)
            spike, mem = self.lif((state[0] if isinstance(state, tuple) else state) * 3, mem)
            spikes.append(spike)
        return torch.stack(spikes), state


def network(build: Callable[[], nn.Module], kind: Callable[..., nn.Module] = Network, *args: Any) -> nn.Module:
    torch.manual_seed(0)
    module = kind(build(), *args).eval()
    generator = torch.Generator().manual_seed(1)
    for name, tensor in module.layer.state_dict().items():
        if "running" in name or ("Norm" in type(module.layer).__name__ and tensor.is_floating_point()):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return module


def inputs(kind: type, shape: tuple[int, ...], batch: int, steps: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(batch)
    if kind in INTEGERS:
        return torch.randint(0, 7, (batch, steps, *shape), generator=generator)
    return torch.randn(batch, steps, *shape, generator=generator)


def shown(row):
    kind, args, options, *_ = row
    return f"{kind.__name__}({', '.join([*map(str, args), *(f'{key}={value}' for key, value in options.items())])})"


def test_every_layer_that_is_taken_has_a_row():
    assert {kind for kind, *_ in [*ROWS, *SEVERAL]} == set(LAYERS)


@pytest.mark.parametrize("converter", LAYERS.values(), ids=lambda converter: converter.kind.__name__)
def test_the_options_and_inputs_are_those_of_the_installed_class(converter):
    options = set(inspect.signature(converter.kind).parameters)
    if issubclass(converter.kind, nn.RNNBase):
        options = {*inspect.signature(nn.RNNBase).parameters} - {"mode"}
        options = options - {"proj_size"} | ({"nonlinearity"} if converter.kind is nn.RNN else set())
        options |= {"proj_size"} if converter.kind is nn.LSTM else set()
    assert set(converter.options) == options - {"device", "dtype", "args", "kwargs"}
    refused = ["output_size"] if "ConvTranspose" in converter.kind.__name__ else []
    assert len(converter.inputs) == len(inspect.signature(converter.kind.forward).parameters) - 1 - len(refused)


def named(rows: list[tuple]) -> dict[str, tuple]:
    """Rows by what they show; the names of modules have no dots."""
    return {shown(row).replace(".", ","): row for row in rows}


def assert_same_as_torch(rows: dict[str, tuple], names: tuple[str, ...]) -> None:
    """Layers that take inputs of the same shape, side by side."""
    kind, _, _, shape, *_ = rows[names[0]]
    nets, inert = {}, []
    for name in names:
        of_net, args, options, _, *call = rows[name]
        nets[name] = network(lambda args=args, options=options, of_net=of_net: of_net(*args, **options), Network, *call)
        if issubclass(of_net, nn.RNNCellBase):
            inert.append(f"nets.{name}.layer.weight_hh")  # without a state, its factor is zero
        if kind in INTEGERS:
            inert.append(f"gains.{len(nets) - 1}")
    module = SideBySide(nets, time_axis=1).eval()
    with without_comparison():
        converted = from_torch(module, (inputs(kind, shape, BATCH, STEPS),))
    assert_same(module, converted, (inputs(kind, shape, BATCH + 1, STEPS + 2),), inert=tuple(inert))


ALL = named([*ROWS, *SEVERAL])


def kind_of(name: str) -> Hashable:
    """What rows have in common that are compared together."""
    kind, _, _, shape, *_ = ALL[name]
    return shape, kind in INTEGERS


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
@by_group(groups(ALL, kind_of))
def test_layers_compute_what_torch_does(names):
    assert_same_as_torch(ALL, names)


@pytest.mark.parametrize(
    "build",
    [
        lambda: nn.RNN(6, 5, nonlinearity="relu"),
        lambda: nn.GRU(6, 5, num_layers=2),
        lambda: nn.LSTM(6, 5, proj_size=3),
    ],
    ids=["RNN", "GRU", "LSTM"],
)
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
def test_a_recurrent_layer_before_and_behind_the_loop_computes_what_torch_does(build):
    module = network(build, Sequences)
    converted = from_torch(module, (inputs(nn.RNN, VECTOR, BATCH, STEPS),))
    assert_same(module, converted, (inputs(nn.RNN, VECTOR, BATCH + 1, STEPS + 2),))


@pytest.mark.parametrize(
    ("build", "call"),
    [
        (lambda: nn.TransformerEncoderLayer(4, 2, 5, batch_first=True), _call("x")),
        (
            lambda: nn.TransformerEncoder(
                nn.TransformerEncoderLayer(4, 2, 5, 0.2, "gelu", batch_first=True, norm_first=True),
                2,
                enable_nested_tensor=False,
            ),
            _call("x", mask="causal"),
        ),
        (lambda: nn.TransformerDecoderLayer(4, 2, 5, batch_first=True), _call("x", "y")),
        (
            lambda: nn.Transformer(
                4,
                2,
                1,
                1,
                5,
                batch_first=True,
                custom_encoder=nn.TransformerEncoder(
                    nn.TransformerEncoderLayer(4, 2, 5, batch_first=True), 1, enable_nested_tensor=False
                ),
            ),
            _call("x", "y"),
        ),
    ],
    ids=["encoder layer", "encoder", "decoder layer", "transformer"],
)
def test_transformers_are_recorded_as_what_they_are_made_of(build, call):
    module = network(build, Network, call)
    converted = from_torch(module, (inputs(nn.Linear, SEQUENCE, BATCH, STEPS),))
    assert_same(module, converted, (inputs(nn.Linear, SEQUENCE, BATCH + 1, STEPS + 2),))


def test_a_slope_that_would_be_drawn_for_other_inputs_is_refused():
    module = network(nn.RReLU, Network, lambda layer, x: layer(x.abs())).train()
    with pytest.raises(UnsupportedOptionError, match=r"RReLU\(training=True\).*evaluation mode"):
        from_torch(module, (inputs(nn.RReLU, VECTOR, BATCH, STEPS),))


@pytest.mark.parametrize("kind", [nn.RNNCell, nn.GRUCell, nn.LSTMCell])
def test_a_cell_whose_state_is_handed_from_step_to_step_computes_what_torch_does(kind):
    module = network(lambda: kind(6, 5), Carried)
    converted = from_torch(module, (inputs(kind, VECTOR, BATCH, STEPS),))
    assert_same(module, converted, (inputs(kind, VECTOR, BATCH + 1, STEPS + 2),))


class Observed(Carried):
    """A cell that reads along, without passing gradients back."""

    def forward(self, x):
        h = c = torch.zeros(x.shape[0], self.layer.hidden_size)
        mem = self.lif.init_leaky()
        spikes = []
        for step in range(x.shape[1]):
            with torch.no_grad():
                h, c = self.layer(x[:, step], (h, c))
            spike, mem = self.lif(x[:, step] + h + c, mem)
            spikes.append(spike)
        return torch.stack(spikes), h, c


def test_a_cell_without_gradients_passes_none_back():
    module = network(lambda: nn.LSTMCell(6, 6), Observed)
    converted = from_torch(module, (inputs(nn.LSTMCell, VECTOR, BATCH, STEPS),))
    inert = tuple(f"layer.{name}" for name, _ in module.layer.named_parameters())
    assert_same(module, converted, (inputs(nn.LSTMCell, VECTOR, BATCH + 1, STEPS + 2),), inert=inert)


def test_arguments_that_a_layer_is_not_converted_with_are_refused():
    module = network(lambda: nn.ConvTranspose1d(4, 3, 2), Network, lambda layer, x: layer(x, output_size=[10]))
    with pytest.raises(UnsupportedModuleError, match=r"ConvTranspose1d is called with the arguments.*output_size"):
        from_torch(module, (inputs(nn.ConvTranspose1d, SIGNAL, BATCH, STEPS),))


@pytest.mark.parametrize(
    ("build", "shape", "message"),
    [
        (lambda: nn.Embedding(7, 5, max_norm=1.0), (3,), r"Embedding\(max_norm=1.0\)"),
        (lambda: nn.Softmax(), VECTOR, r"Softmax\(dim=None\).*name it"),
        (lambda: nn.Upsample(scale_factor=2, mode="area"), IMAGE, "Upsample.mode='area'"),
        (lambda: nn.MaxPool1d(2, return_indices=True), SIGNAL, r"MaxPool1d\(return_indices=True\)"),
        (lambda: nn.InstanceNorm2d(4, track_running_stats=True).train(), IMAGE, "evaluation"),
        (lambda: nn.BatchNorm2d(4, track_running_stats=False), IMAGE, "track_running_stats"),
    ],
)
@pytest.mark.filterwarnings("ignore:Implicit dimension choice:UserWarning")
def test_what_has_no_counterpart_is_refused_with_its_path(build, shape, message):
    module = Network(build())
    kind = nn.Embedding if isinstance(module.layer, nn.Embedding) else nn.Module
    with pytest.raises(UnsupportedOptionError, match=message) as caught:
        from_torch(module, (inputs(kind, shape, BATCH, STEPS),))
    assert caught.value.path == "layer"
