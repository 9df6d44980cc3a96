"""What a framework says of its classes, and the parameters that it takes along."""
