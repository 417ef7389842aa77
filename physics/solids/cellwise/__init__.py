"""Solids with mean dilatation cell by cell, derived from their law: what first guesses are made of."""
