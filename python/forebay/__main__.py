"""`python -m forebay`: the command `forebay`."""

from forebay._run import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
