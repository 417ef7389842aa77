"""Inner solves, gradients and calibrations at size."""
