"""Parts: where they are declared, how they are discovered, and what their signatures say."""
