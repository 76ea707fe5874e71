"""unstained: live or dead from bright-field images alone."""
