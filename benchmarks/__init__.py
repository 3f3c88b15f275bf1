"""What the project promises to be fast at, measured side by side with the alternative, in one run."""
