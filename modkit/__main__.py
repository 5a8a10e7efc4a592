"""`python -m modkit` is the command line as well."""

from modkit.cli.app import main

if __name__ == "__main__":
    main()
