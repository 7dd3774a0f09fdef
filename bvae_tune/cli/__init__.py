"""The command line: parse, call, print. One file per group of commands; imports of real work happen inside them."""
