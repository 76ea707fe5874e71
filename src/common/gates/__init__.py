"""The Great Expectations gates between the stages."""
