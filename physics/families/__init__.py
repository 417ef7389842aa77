"""Families of problems for learned guesses and the bench: generators of instances of any size, with other meshes, contrasts and loads."""
