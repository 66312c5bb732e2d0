"""What every strategy must satisfy, as named checks."""
