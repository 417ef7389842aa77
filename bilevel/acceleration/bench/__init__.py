"""Learned guesses against the best classical solvers, each tuned on the same training set: times, counts, wins and losses."""
