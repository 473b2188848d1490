"""`python3 -m pipelines.unsupervised` runs the pipeline."""

import signal

if __name__ == "__main__":
    # a SIGTERM during the imports waits until there is a handler
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    from pipelines.unsupervised.driver import run

    run()
