"""What follows from a user's files by thought alone: addresses, cells, seeds, outcomes."""
