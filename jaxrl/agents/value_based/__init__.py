"""Agents that learn the values of actions."""
