"""Load weights that were trained elsewhere, and whole trained networks."""
