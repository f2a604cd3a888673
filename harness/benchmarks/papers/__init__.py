"""The benchmarks that papers report, one module a benchmark or a format. Each lists `DECLARATIONS`."""
