"""Frames and windows: geometry, the 8-bit scaling and what is measured on them."""
