"""Neurons that forget: modules whose state is set back at every call."""

from typing import Any

import jax

from snnax import snn


class Restart(snn.AbstractLayer):
    """A layer with state that starts from its beginning at every time step.

    torch code does this when it resets states in a forward that is called once per time step.
    """

    layer: Any

    def init_state(self, shape: tuple[int, ...] | None = None, *, key: Any = None) -> Any:
        return self.layer.init_state(shape, key=key)

    def __call__(self, state: Any, x: Any, *, key: Any = None) -> tuple[Any, Any]:
        fresh = self.layer.init_state(x.shape)
        fresh = jax.tree.map(lambda new, old: new.astype(old.dtype), fresh, state)
        return self.layer(fresh, x, key=key)
