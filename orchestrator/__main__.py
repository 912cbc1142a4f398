"""`python -m orchestrator` is `saga`."""

from orchestrator.cli import main

if __name__ == "__main__":
    main()
