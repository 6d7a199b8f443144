"""The `lesionary` command: the only place that prints, configures logging and connects to Ray."""
