"""What the sizes of a run follow from: the batch and the length."""
