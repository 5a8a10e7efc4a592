"""What the studies share: their budgets, means over seeds, and the pages that they fill."""
