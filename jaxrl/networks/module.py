"""What every network here is: a module of flax, of which `apply` returns what `__call__` does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import flax.linen as nn

if TYPE_CHECKING:
    from jaxrl.types import PyTree


class Module(nn.Module):
    """A module of flax. Nothing in it is mutable, so `apply` returns no variables; flax's own type leaves that open."""

    if TYPE_CHECKING:

        def init(self, rngs: Any, *args: Any, **kwargs: Any) -> Any:
            """The variables, `{"params": ...}`."""

        def apply(self, variables: PyTree, *args: Any, **kwargs: Any) -> Any:
            """What `__call__`, or another `method`, returns."""
