"""The command line: one file per command, options that commands share in `options`."""
