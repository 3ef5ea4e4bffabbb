"""What `safesession check` looks for in source files, which it reads and never runs."""
