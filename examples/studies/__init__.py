"""What the studies share: budgets, pools of processes, means over seeds, and the pages that they fill."""
