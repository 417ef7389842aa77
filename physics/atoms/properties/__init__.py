"""What is measured of crystals, as differentiable functions of structures at rest."""
