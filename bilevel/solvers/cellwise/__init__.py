"""First guesses by linear systems whose local states a network predicts."""
