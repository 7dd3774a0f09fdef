"""The search spaces that ship with bvae-tune, found by name: `--space shapes`."""
