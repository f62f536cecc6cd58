"""Refuses to be imported in a subinterpreter, before the extension module is: it would be shared with the main one, and no
longer work there when the subinterpreter ends. (Isolated subinterpreters refuse it by themselves.)"""

from __future__ import annotations


def refuse_subinterpreters() -> None:
    """Errors: ImportError, in any interpreter but the main one."""
    try:
        import _interpreters as interpreters  # Python 3.13
    except ImportError:
        try:
            import _xxsubinterpreters as interpreters
        except ImportError:
            return
    here, main = interpreters.get_current(), interpreters.get_main()
    if here != main:
        raise ImportError("tersor cannot be imported in a subinterpreter")


refuse_subinterpreters()
