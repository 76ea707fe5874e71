"""Image files as they are read by all: one plane of a TIFF or PNG, with its pixel size."""
