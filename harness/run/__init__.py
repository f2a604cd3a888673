"""A run from its request to its summary: the accuracy pass, the controls, suites of presets."""
