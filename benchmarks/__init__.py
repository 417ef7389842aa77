"""What is timed and measured: `python -m benchmarks list`, `python -m benchmarks run NAME [--quick] [--json FILE]`."""
