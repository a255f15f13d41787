"""Search over a policy's parameters, without gradients."""
