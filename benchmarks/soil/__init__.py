"""Soil models against closed forms and laboratory tests."""
