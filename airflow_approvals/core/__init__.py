"""The rules: values in, values out, or an error. No clock, no I/O, no framework."""
