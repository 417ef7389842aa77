"""Files that other codes read and write."""
