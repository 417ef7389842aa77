"""Families of problems for learned steps: generators of instances of any size, with other meshes, contrasts and loads."""
