"""The program: what a network computes, printable and runnable by torch itself."""
