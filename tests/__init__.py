"""What the tests share, and the tests themselves, a room each."""
