"""What the kinds of studies on a mesh of one's own share: mesh, zones, values that may vary, sensors, maps."""
