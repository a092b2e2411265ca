"""Run the command line by `python -m gentrain`."""

from gentrain.cli import main

if __name__ == "__main__":
    main()
