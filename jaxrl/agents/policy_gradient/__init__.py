"""Agents that go up the gradient of the policy's return."""
