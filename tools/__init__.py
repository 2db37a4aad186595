"""What keeps the project itself in shape."""
