"""Run the command as `python -m audiopipe`, where its script is not on the PATH."""

from audiopipe.cli import main

if __name__ == "__main__":
    main()
