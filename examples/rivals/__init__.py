"""Systems beside a baseline, trained for the same CPU time: which are better, by features that none was tuned on."""
