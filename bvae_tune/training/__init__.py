"""Training of R replicas as one program."""
