"""Errors in the middle of a model, with the path of the node."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax


class NodeError(ValueError):
    """A node that cannot compute: `path` of the node from the outermost model, `kind` of it, and the `message`."""

    def __init__(self, path: str, kind: str, message: str):
        super().__init__(path, kind, message)
        self.path, self.kind, self.message = path, kind, message

    def __str__(self) -> str:
        return f"node '{self.path}' ({self.kind}): {self.message}"


@contextlib.contextmanager
def of_node(name: str, node: Any) -> Iterator[None]:
    """What a node raises within tells where the node is. Errors of JAX's tracing say more as they are."""
    try:
        yield
    except NodeError as error:
        raise NodeError(f"{name}.{error.path}", error.kind, error.message) from error.__cause__
    except (TypeError, ValueError) as error:
        if isinstance(error, jax.errors.JAXTypeError):
            raise
        raise NodeError(name, getattr(node, "__name__", type(node).__name__), str(error)) from error
