"""Studies: train over a grid of settings and report planned and measured data movement."""
