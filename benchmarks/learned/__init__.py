"""Learned iterative schemes, first guesses and steps."""
