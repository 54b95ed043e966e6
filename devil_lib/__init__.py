"""The library behind the course."""
