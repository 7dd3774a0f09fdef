"""What encodes and decodes: the networks of Table 1, raw pixels and PCA."""
