"""What the tool costs, as ratios of two measurements of one run."""
