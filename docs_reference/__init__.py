"""The reference pages of the documentation, made from the code each time they are built: none can fall behind it."""
