"""`python3 -m pipelines.unsupervised`."""

import signal

if __name__ == "__main__":
    # a SIGTERM that comes while the rest is imported waits until it is heeded
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    from pipelines.unsupervised.driver import run

    run()
