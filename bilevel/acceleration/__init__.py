"""Steps, first guesses and weights that graph networks learn on families of problems."""
