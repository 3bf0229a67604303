"""Training objectives: cross-entropy with the two auxiliary CTC losses."""
