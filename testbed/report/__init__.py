"""From the result document to what a person sees."""
