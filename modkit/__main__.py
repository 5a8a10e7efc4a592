"""`python -m modkit` is the command line, too."""

from modkit.cli.app import main

if __name__ == "__main__":
    main()
