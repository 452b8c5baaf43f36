"""One file per published layout of a data set."""
