"""What the experiments of all six projects share; nothing here is part of a chapter."""
