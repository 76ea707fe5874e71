"""What the test split says of a model."""
