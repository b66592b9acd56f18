"""The command line: parse, call one function, print the result."""
