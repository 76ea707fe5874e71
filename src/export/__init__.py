"""A registered model for other programs; stands above the graph and imports no stage."""
