"""Training of QuietPrune's adapter on any supported model."""
