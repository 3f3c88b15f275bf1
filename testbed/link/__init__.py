"""A link as a pure model: the fate and the time of each frame."""
