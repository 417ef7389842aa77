"""The same problems by hand or by other packages, for comparison."""
