"""PyTorch itself."""

from ...converters.framework import Framework, RecordedClasses, full_name
from ._layers import LAYERS as LAYERS


# Classes made of other modules, by name: some are private, or cost time to import.
_MADE_OF_OTHERS = {
    "torch.nn.modules.container.Sequential",
    "torch.nn.modules.container.ModuleList",
    "torch.nn.modules.container.ModuleDict",
    "torch.nn.parallel.data_parallel.DataParallel",
    "torch._dynamo.eval_frame.OptimizedModule",
    "torch.nn.utils.parametrize.ParametrizationList",
    "torch.nn.utils.parametrizations._WeightNorm",
    "torch.nn.utils.parametrizations._SpectralNorm",
    "torch.nn.modules.transformer.Transformer",
    "torch.nn.modules.transformer.TransformerEncoderLayer",
    "torch.nn.modules.transformer.TransformerDecoderLayer",
    "torch.nn.modules.transformer.TransformerEncoder",
    "torch.nn.modules.transformer.TransformerDecoder",
}

FRAMEWORK = Framework(
    name="torch",
    converters=LAYERS,
    recorded=RecordedClasses(takes=lambda kind: full_name(kind) in _MADE_OF_OTHERS),
)
