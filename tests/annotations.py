"""Annotations are checked at every call of a run: by jaxtyping where shapes are named, by beartype alone elsewhere.

A plugin of pytest, loaded before the bridge is imported. A conversion makes some hundred thousand calls of
small functions; binding the shapes of each takes ten times as long as converting, and comparing its types next to
nothing.
"""

from beartype import BeartypeConf, BeartypeDecorPlace
from beartype.claw import beartype_package


# What names the sizes of shapes; `--jaxtyping-packages` in pyproject.toml has it too.
SHAPES_ARE_NAMED = ("snnax_interop.frameworks.spikingjelly",)

beartype_package(
    "snnax_interop",
    conf=BeartypeConf(
        claw_skip_package_names=SHAPES_ARE_NAMED,
        claw_is_pep526=False,
        violation_type=TypeError,
        # Functions are checked below their decorators, which may return something else, such as `jax.custom_jvp`.
        claw_decor_place_func=BeartypeDecorPlace.FIRST,
    ),
)
