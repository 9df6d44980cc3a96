"""`snntorch.functional.quant.state_quant`, recognised by the closure that it makes."""

from typing import Any

from snnax import snn

from ...converters.context import ConversionContext


def quantiser_of(module: Any, context: ConversionContext) -> snn.Quantiser | None:
    """The levels that a neuron's states are rounded to; None where they are not."""
    function = module.state_quant
    if not function:
        return None
    name = getattr(function, "__qualname__", "")
    if getattr(function, "__module__", None) == "snntorch.functional.quant" and name == "state_quant.<locals>.inner":
        values = dict(zip(function.__code__.co_freevars, function.__closure__, strict=True))
        levels = values["levels"].cell_contents
        return snn.Quantiser(tuple(float(level) for level in levels))
    raise context.refuse(
        "state_quant",
        function,
        allowed="False, snntorch.functional.quant.state_quant(...)",
        advice="What another function computes cannot be read from it; write it as tensor functions around the neuron",
    )
