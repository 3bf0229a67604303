"""Values of the published system, for tests to be equal to; README.md says what the files are."""
