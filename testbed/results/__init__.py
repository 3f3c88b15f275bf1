"""What trials gave: one record each, the folder that keeps them, and the document that sums them up."""
