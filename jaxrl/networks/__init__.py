"""Networks in flax.linen: torsos, which turn observations into features, and what stands on them."""

from jaxrl.networks.torsos import ACTIVATIONS, CNN, MLP, make_torso, orthogonal

__all__ = ["ACTIVATIONS", "CNN", "MLP", "make_torso", "orthogonal"]
