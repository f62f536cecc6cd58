"""Mutants that no test can catch, because they change nothing that is promised: (file, line before, line after) -> why."""

EQUIVALENT = {}
