"""FLOPs of a prefill: planned, realised, and tabulated for real model sizes."""
