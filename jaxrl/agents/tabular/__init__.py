"""Agents that keep a table, or a linear function of features, and the textbook's algorithms to learn it."""
