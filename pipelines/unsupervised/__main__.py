"""`python3 -m pipelines.unsupervised`."""

from pipelines.unsupervised.driver import run

if __name__ == "__main__":
    run()
