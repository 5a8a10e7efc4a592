"""Parts: their declarations, discovery, signatures and the validation of their parameters."""
