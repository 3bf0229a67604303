"""The ``fbk-xattn`` command, one module a subcommand."""
