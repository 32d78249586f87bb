"""The fuzzing harness: a small valid file of every format, mutants of it, and children that read them under limits."""
