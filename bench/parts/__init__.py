"""The processes of benchmarks, so that measured code and measuring code do not share an interpreter."""
