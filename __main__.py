"""`python -m sparsedict` and the installed command `sparsedict`."""


def main() -> None:
    try:
        from .cli import main as run
    except ModuleNotFoundError as error:
        # The bare dependencies are enough for a host that only loads adapters; say what the command line needs more.
        if error.name != "click":
            raise
        raise SystemExit("Error: the command line needs the extra packages: pip install 'sparsedict[full]'") from None
    run()


if __name__ == "__main__":
    main()
