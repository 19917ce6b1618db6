"""`python -m carat` is `carat`."""

from carat.cli import main

if __name__ == "__main__":
    main()
