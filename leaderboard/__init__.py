"""The board: pages over the store. Reads results only; never imports torch, transformers or methods."""
