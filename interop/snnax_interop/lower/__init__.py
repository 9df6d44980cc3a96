"""From a program to native snnax graphs."""
