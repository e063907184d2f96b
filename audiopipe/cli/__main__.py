"""Run the command with `python -m audiopipe.cli`."""

from audiopipe.cli import main

if __name__ == "__main__":
    main()
