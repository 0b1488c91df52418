"""What every emulated service is made of: its process, its faults, its clock, and what it keeps on disk."""
