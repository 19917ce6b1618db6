"""Domain-independent helpers: errors, files, locks, tables, progress, and worker processes."""
