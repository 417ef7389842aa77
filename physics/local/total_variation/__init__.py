"""Smoothed total variation on linear cells, and its cell-wise form."""
